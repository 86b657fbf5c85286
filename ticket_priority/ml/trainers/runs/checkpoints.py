"""A transformer run's folder, which its processes share, and its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.trainers.runs.folders import new_run
from ticket_priority.ml.types import TrainingConfig

_RUN_DIR_VARIABLE: Final = "TICKET_PRIORITY_RUN_DIR"


def is_first_process() -> bool:
    """Tell whether this is the process that writes files; the others only train."""
    return not getattr(rank_zero_only, "rank", 0)


@contextmanager
def run_directory(config: TrainingConfig) -> Iterator[Path]:
    """Make a new folder for this run, which all its processes share.

    Raises TrainingError when the output folder cannot be written to.
    """
    if not is_first_process():
        # The first process made the folder and then started this one.
        yield Path(os.environ.get(_RUN_DIR_VARIABLE, config.output_dir))
        return
    with new_run(Path(config.output_dir)) as run_dir:
        os.environ[_RUN_DIR_VARIABLE] = str(run_dir)
        try:
            yield run_dir
        finally:
            os.environ.pop(_RUN_DIR_VARIABLE, None)


def read_checkpoint(config: TrainingConfig) -> dict[str, Any]:
    """Read the checkpoint to resume.

    Raises TrainingError where it cannot be read, or was not made by this configuration.
    """
    path = Path(str(config.resume_from))
    if not path.is_file():
        raise TrainingError(f"There is no checkpoint to resume at {path}.")
    checkpoint = load_checkpoint(path)
    known = checkpoint.get("hyper_parameters")
    if not isinstance(known, dict) or not isinstance(checkpoint.get("epoch"), int):
        raise TrainingError(f"{path} is no checkpoint of a training run.")
    for name in ("model_name", "trainable_layers"):
        if known.get(name) != getattr(config, name):
            raise TrainingError(
                f"{path} was trained with {name}={known.get(name)!r}, not "
                f"{getattr(config, name)!r}. Resume it with the configuration it was started with."
            )
    if checkpoint["epoch"] + 1 >= config.max_epochs:
        raise TrainingError(
            f"{path} has finished {checkpoint['epoch'] + 1} epochs already: "
            "set max_epochs to a higher number to go on."
        )
    return checkpoint


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it. Raises TrainingError."""
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise TrainingError(
            f"The checkpoint {path} cannot be read, or holds more than numbers and plain values, "
            f"which is not run: {error}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise TrainingError(f"The checkpoint {path} holds a {type(checkpoint).__name__}.")
    return checkpoint
