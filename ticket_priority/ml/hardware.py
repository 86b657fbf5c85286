"""What the training machine offers: its devices, its cores, the precision it computes in."""

from __future__ import annotations

import os

import torch
from lightning.pytorch.accelerators import CUDAAccelerator

from ticket_priority.interfaces import TrainingConfig


def precision(config: TrainingConfig) -> str:
    """Return Lightning's precision for "auto": bf16 where the hardware computes in it.

    On a CPU with AVX-512 or AMX bf16 a step takes half the time of float32 and keeps its master
    weights in float32; a CPU without them would only emulate it.
    """
    if config.precision != "auto":
        return config.precision
    if _on_cuda(config):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if bf16 else "16-mixed"
    if config.accelerator == "auto" and torch.backends.mps.is_available():
        return "32-true"
    features = torch.cpu.get_capabilities()
    native = features.get("avx512_bf16") or features.get("amx_bf16")
    return "bf16-mixed" if native and config.accelerator in ("auto", "cpu") else "32-true"


def _on_cuda(config: TrainingConfig) -> bool:
    return config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def device_count(config: TrainingConfig) -> int:
    devices = config.devices
    if _on_cuda(config):
        if devices == "auto":
            return int(CUDAAccelerator.auto_device_count())
        return len(CUDAAccelerator.parse_devices(devices) or [0])
    return int(devices) if str(devices).isdigit() else 1


def usable_cores() -> int:
    # Affinity honours taskset and containers; macOS and Windows have none.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
