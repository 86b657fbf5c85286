"""Lightning's training loop: how it is set up, its errors, and its best epoch."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.trainers.runs import hardware
from ticket_priority.ml.trainers.runs.checkpoints import load_checkpoint
from ticket_priority.ml.trainers.runs.loggers import EpochProgress, loggers
from ticket_priority.ml.trainers.transformer.datamodule import TicketDataModule
from ticket_priority.ml.trainers.transformer.module import (
    VALIDATION_METRICS,
    TicketClassificationModule,
)
from ticket_priority.ml.types import ProgressCallback, TrainingConfig


@dataclass(frozen=True, slots=True)
class TrainingLoop:
    """The loop of one run. `resumed` is the checkpoint that it continues, if any."""

    config: TrainingConfig
    run_dir: Path
    precision: str
    progress: ProgressCallback
    show_progress_bar: bool
    resumed: dict[str, Any] | None

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.run_dir / "checkpoints"

    def trainer(self, rows: int) -> Trainer:
        """Return Lightning's trainer for so many rows.

        Raises TrainingError when the machine cannot run the configuration.
        """
        try:
            return self._trainer(rows)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise TrainingError(
                f"The training machine cannot run this configuration: {error} "
                "Check accelerator, devices, strategy and precision."
            ) from error

    def run(
        self, trainer: Trainer, module: TicketClassificationModule, data: TicketDataModule
    ) -> None:
        """Train. Raises TrainingError with what to do about it, and KeyboardInterrupt."""
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module, datamodule=data, ckpt_path=self.config.resume_from, weights_only=True
            )
        except SystemExit as stop:
            # Lightning ends the program on Ctrl-C.
            if not trainer.interrupted:
                raise
            raise KeyboardInterrupt from stop
        except MisconfigurationException as error:
            raise TrainingError(f"Training cannot start: {error}") from error
        except OSError as error:
            raise TrainingError(
                f"Training stopped in {self.run_dir}: {error}. Check its free space and "
                f"permissions; checkpoints to resume from are in {self.checkpoints}."
            ) from error
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "The device ran out of memory: lower batch_size or max_length "
                "(accumulate_grad_batches keeps the effective batch)."
            ) from error
        except Exception as error:
            if not type(error).__module__.startswith("wandb."):
                raise
            raise TrainingError(
                f"Weights & Biases cannot be used: {error} Log in with `wandb login`, or set "
                "wandb_mode to 'offline', or unset wandb_project."
            ) from error
        finally:
            # Lightning leaves SIGINT ignored after an interrupt.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)

    def best(self, trainer: Trainer) -> dict[str, Any]:
        """Return the best checkpoint of this run and of the one it resumes, `path` added."""
        callback = trainer.checkpoint_callback
        if not (path := getattr(callback, "best_model_path", "")):
            raise TrainingError(
                f"No epoch was finished, so there is no model. See {self.run_dir}/metrics.csv."
            )
        best = load_checkpoint(Path(path)) | {"path": Path(path)}
        earlier = self._earlier_best()
        if earlier is not None:
            name, sign = self.config.monitor, 1 if self._mode == "max" else -1
            if sign * earlier[VALIDATION_METRICS][name] >= sign * best[VALIDATION_METRICS][name]:
                return earlier
        return best

    @property
    def _mode(self) -> str:
        return "min" if self.config.monitor.endswith("loss") else "max"

    def _trainer(self, rows: int) -> Trainer:
        config = self.config
        devices = hardware.device_count(config)
        steps = rows // (config.batch_size * devices * config.num_nodes)
        spawned = devices > 1 and config.num_nodes == 1 and config.strategy == "auto"
        callbacks: list[Callback] = [
            ModelCheckpoint(
                dirpath=self.checkpoints,
                filename="epoch={epoch}-step={step}",
                auto_insert_metric_name=False,
                monitor=config.monitor,
                mode=self._mode,
                save_top_k=1,
            ),
            # Lightning's save_last skips epochs that are not the best so far.
            ModelCheckpoint(self.checkpoints, "last", enable_version_counter=False),
            hardware.OverflowGuard(),
        ]
        if config.patience is not None:
            callbacks.append(
                EarlyStopping(config.monitor, patience=config.patience, mode=self._mode)
            )
        if devices == 1:
            # The caller's function cannot be sent to a spawned process.
            callbacks.append(EpochProgress(self.progress))
        if self.show_progress_bar:
            callbacks.append(TQDMProgressBar(leave=False))
        return Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy="ddp_spawn" if spawned else config.strategy,
            precision=self.precision,  # type: ignore[arg-type]  # checked by Lightning
            max_epochs=config.max_epochs,
            accumulate_grad_batches=config.accumulate_grad_batches,
            gradient_clip_val=config.gradient_clip_val,
            logger=loggers(config, self.run_dir),
            callbacks=callbacks,
            default_root_dir=self.run_dir,
            log_every_n_steps=max(1, min(10, steps)),
            enable_progress_bar=self.show_progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )

    def _earlier_best(self) -> dict[str, Any] | None:
        if self.resumed is None:
            return None
        for name, state in self.resumed["callbacks"].items():
            path = Path(state.get("best_model_path") or "")
            judged = name.startswith("ModelCheckpoint") and state["monitor"] == self.config.monitor
            if judged and path.is_file():
                return load_checkpoint(path) | {"path": path}
        return None
