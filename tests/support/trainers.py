"""Trainers that go wrong, to be named in the settings."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ticket_priority.ml.types import LabelledText, ProgressCallback, TrainingConfig


def never_end(*splits: Sequence[LabelledText], progress: ProgressCallback, **options: Any) -> None:
    """Say the number of a process that is started, and train for ever."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    progress(f"child {child.pid}")
    time.sleep(600)


def fill_the_disk(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    **options: Any,
) -> None:
    """Write half a model to a folder of the run, and the rest to a disk that is full."""
    run = Path(config.output_dir) / "run"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"half")
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"the rest")


def break_down(*splits: Sequence[LabelledText], **options: Any) -> None:
    raise RuntimeError("the optimiser broke down")
