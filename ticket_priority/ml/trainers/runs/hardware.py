"""What the training machine has: devices, cores, memory, and the best precision for it."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import CUDAAccelerator

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.types import TrainingConfig

_WORTHWHILE_GAIN: Final = 1.2

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_DEFAULT_THRESHOLD: Final = 128 * 1024
_LARGEST_BLOCK: Final = 1 << 30


def precision(config: TrainingConfig) -> str:
    """Return Lightning's precision; for "auto" bf16 where that is faster, else float32.

    A CPU without AVX-512 or AMX bf16 emulates it. With it, some are twice as fast as in float32
    and some half as fast, so the speed is measured. float16 is never chosen: on an H100 a base
    model learnt nothing in it.
    """
    if config.precision != "auto":
        return config.precision
    if _on_cuda(config):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if bf16 else "32-true"
    if not on_cpu(config):
        return "32-true"
    features = torch.cpu.get_capabilities()
    native = features.get("avx512_bf16") or features.get("amx_bf16")
    return "bf16-mixed" if native and bf16_gain() > _WORTHWHILE_GAIN else "32-true"


def on_cpu(config: TrainingConfig) -> bool:
    """Tell whether the run trains on the CPU."""
    if config.accelerator != "auto":
        return config.accelerator == "cpu"
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def bf16_gain(rounds: int = 15) -> float:
    """Return how many times faster a core multiplies matrices in bf16 than in float32.

    The best of some alternating rounds is taken, so that other work on the machine matters less.
    Takes about a tenth of a second.
    """
    operands = {
        dtype: (torch.ones(256, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    best = dict.fromkeys(operands, math.inf)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(rounds):
            for dtype, (left, right) in operands.items():
                started = time.perf_counter()
                torch.mm(left, right)
                best[dtype] = min(best[dtype], time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return best[torch.float32] / best[torch.bfloat16]


class OverflowGuard(Callback):
    """Ends a run whose gradients overflow in float16, which would learn nothing.

    A step whose scaled gradients overflow is skipped, and the scale is halved. Below 1, the
    gradients overflow without scaling.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise TrainingError where the scale is below 1."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and scaler.get_scale() < 1:
            raise TrainingError(
                "The gradients of this base model overflow in float16, so nothing is learnt: "
                'choose the precision "bf16-mixed" or "32-true".'
            )


@contextmanager
def freed_memory_kept(config: TrainingConfig) -> Iterator[None]:
    """Keep freed memory in the process while it trains on a CPU, where the C library is glibc.

    By default large blocks are returned at once, and the kernel clears them when they are allocated
    again. Measured, that took a tenth of the time of a training step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or not on_cpu(config):
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, _LARGEST_BLOCK)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)
        ctypes.CDLL(None).malloc_trim(0)


def _on_cuda(config: TrainingConfig) -> bool:
    return config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def device_count(config: TrainingConfig) -> int:
    """Return how many devices of this machine the run uses."""
    devices = config.devices
    if _on_cuda(config):
        if devices == "auto":
            return int(CUDAAccelerator.auto_device_count())
        return len(CUDAAccelerator.parse_devices(devices) or [0])
    return max(1, int(devices)) if str(devices).isdigit() else 1


def usable_cores() -> int:
    """Return how many cores this process may use."""
    # Affinity honours taskset and containers; macOS and Windows have none.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
