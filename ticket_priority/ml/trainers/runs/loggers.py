"""The loggers of a training run, a progress line for each epoch, and Lightning kept quiet."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.types import ProgressCallback, TrainingConfig

_EXPECTED_WARNINGS: Final = (
    # num_workers is 0 on purpose: texts are tokenised beforehand.
    r".*does not have many workers.*",
    # A resumed run has its own folder; `TrainingLoop.best` compares the two runs' checkpoints.
    r"The dirpath has changed from.*",
    # The folder belongs to this run; only Weights & Biases may have written to it.
    r"Experiment logs directory .* exists and is not empty.*",
    # In float16 a step whose gradients overflow is skipped, and the first ones often do.
    r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`.*",
    # accelerator="cpu" is a choice.
    r"GPU available but not used.*",
    # Lightning's own use of a torch class that torch is about to rename.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)


def loggers(config: TrainingConfig, run_dir: Path) -> list[Logger]:
    """Return the CSV logger and, where a project is set, the Weights & Biases one.

    Raises TrainingError when Weights & Biases is wanted but not installed.
    """
    chosen: list[Logger] = [CSVLogger(run_dir, name="", version="")]
    if config.wandb_project is None:
        return chosen
    # "online" is not passed on, so that WANDB_MODE can override it.
    options: dict[str, Any] = {}
    if config.wandb_mode != "online":
        options["mode"] = config.wandb_mode
        # Even offline, wandb would contact its server about telemetry.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        chosen.append(WandbLogger(project=config.wandb_project, save_dir=run_dir, **options))
    except ModuleNotFoundError as error:
        raise TrainingError(
            "wandb_project is set, but Weights & Biases is not installed: "
            'pip install "django-ticket-priority[wandb]", or unset wandb_project.'
        ) from error
    return chosen


def finish(config: TrainingConfig) -> None:
    """Flush and close Weights & Biases, where it is used."""
    if config.wandb_project is not None and (wandb := sys.modules.get("wandb")):
        wandb.finish()


class EpochProgress(Callback):
    """Reports the metrics of each epoch to the caller."""

    def __init__(self, progress: ProgressCallback) -> None:
        self.progress = progress

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch's metrics in a line."""
        shown = ("train_loss", "val_loss", "val_accuracy", "val_macro_f1")
        figures = ", ".join(
            f"{name} {float(trainer.callback_metrics[name]):.3f}"
            for name in shown
            if name in trainer.callback_metrics
        )
        self.progress(f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {figures}")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's banners and tips, and the warnings that are expected."""
    chatty = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [one.level for one in chatty]
    try:
        for one in chatty:
            one.setLevel(max(logging.WARNING, one.level))
        with warnings.catch_warnings():
            for message in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for one, level in zip(chatty, levels, strict=True):
            one.setLevel(level)
