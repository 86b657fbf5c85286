"""What a training run tells: its loggers, a line for each epoch, and no banners."""

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
    # num_workers is 0 on purpose: texts are tokenised beforehand, and workers would only fork.
    r".*does not have many workers.*",
    # A resumed run has a folder of its own; `_best` compares the two runs' best checkpoints.
    r"The dirpath has changed from.*",
    # The folder is this run's own; only Weights & Biases may have written to it before.
    r"Experiment logs directory .* exists and is not empty.*",
    # In float16 a step whose gradients overflow is left out, and the first ones often do.
    r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`.*",
    # A GPU left alone was left alone by accelerator="cpu".
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
    # "online" is left to wandb, so that WANDB_MODE can still say otherwise.
    options: dict[str, Any] = {}
    if config.wandb_mode != "online":
        options["mode"] = config.wandb_mode
        # Offline it would still ask its server whether that takes telemetry.
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
    """Write out what a logger still holds back."""
    # Where it is not installed, `loggers` has said so.
    if config.wandb_project is not None and (wandb := sys.modules.get("wandb")):
        wandb.finish()


class EpochProgress(Callback):
    """Tells the caller how each epoch went."""

    def __init__(self, progress: ProgressCallback) -> None:
        self.progress = progress

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shown = ("train_loss", "val_loss", "val_accuracy", "val_macro_f1")
        figures = ", ".join(
            f"{name} {float(trainer.callback_metrics[name]):.3f}"
            for name in shown
            if name in trainer.callback_metrics
        )
        self.progress(f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {figures}")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and tips out of a command's output; its warnings stay."""
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
