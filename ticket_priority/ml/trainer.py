"""One training run, from labelled texts to a finished artefact."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from sklearn.metrics import log_loss

from ticket_priority import metrics
from ticket_priority.exceptions import TrainingError
from ticket_priority.interfaces import (
    CLASS_NAMES,
    ArtifactFile,
    LabelledText,
    ProgressCallback,
    TrainingConfig,
    TrainingResult,
    silent,
)
from ticket_priority.ml import baseline, encoders, hardware, reporting
from ticket_priority.ml.data import LengthBucketSampler, TicketDataModule
from ticket_priority.ml.export import write_artifact
from ticket_priority.ml.folders import all_or_nothing
from ticket_priority.ml.module import VALIDATION_METRICS, TicketClassificationModule
from ticket_priority.ml.runs import load_checkpoint, read_checkpoint, run_directory

_EVALUATED_AT_ONCE: Final = 8


def fit(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    *,
    progress: ProgressCallback = silent,
    show_progress_bar: bool = True,
) -> TrainingResult:
    """Train a classifier, judge its best epoch on `test` and write the artefact.

    Everything lands in `<output_dir>/YYYY-MM-DD/HH-MM-SS/`: metrics.csv, hparams.yaml,
    checkpoints/, and artifact/, which appears only when it is complete. Epochs are counted from 1
    in the metrics and from 0 in the names of checkpoints. The test split is read once, after the
    best epoch was chosen by `config.monitor` on the validation split.

    With several devices and the strategy "auto", processes are spawned. Under a strategy that
    runs the whole program once a device, only the first writes; the others get empty metrics.

    Raises TrainingError (EncoderUnavailableError for the base model) with what to do about it,
    and KeyboardInterrupt on Ctrl-C; no artefact is left behind then.
    """
    _require_rows(train=train, validation=validation, test=test)
    resumed = read_checkpoint(config) if config.resume_from else None
    threads = torch.get_num_threads()
    try:
        with reporting.quiet_lightning(), run_directory(config) as run_dir:
            seed_everything(config.seed, workers=True, verbose=False)
            torch.set_num_threads(config.threads or hardware.usable_cores())
            run = _Run(config, run_dir, progress, show_progress_bar, resumed)
            return run.fit(train, validation, test)
    finally:
        torch.set_num_threads(threads)


class _Run:
    """The steps of one `fit`, which share the configuration and the run's folder."""

    def __init__(
        self,
        config: TrainingConfig,
        run_dir: Path,
        progress: ProgressCallback,
        show_progress_bar: bool,
        resumed: dict[str, Any] | None,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.checkpoints = run_dir / "checkpoints"
        self.progress = progress
        self.show_progress_bar = show_progress_bar
        self.resumed = resumed
        self.precision = hardware.precision(config)

    def fit(
        self,
        train: Sequence[LabelledText],
        validation: Sequence[LabelledText],
        test: Sequence[LabelledText],
    ) -> TrainingResult:
        config = self.config
        self.progress(f"Loading the base model {config.model_name}")
        encoder = encoders.resolve(config.model_name, local_files_only=config.local_files_only)
        tokenizer = encoders.load_tokenizer(encoder)
        max_length = min(config.max_length, int(tokenizer.model_max_length))
        data = TicketDataModule(
            train,
            validation,
            test,
            tokenizer,
            prefix=encoder.prefix,
            batch_size=config.batch_size,
            max_length=max_length,
            seed=config.seed,
            num_workers=config.num_workers,
        )
        module = self._module()
        trainer = self._trainer(len(train))
        self.progress(
            f"Training on {len(train)} texts, validating on {len(validation)}, in {self.precision}"
        )
        started = time.monotonic()
        try:
            self._train(trainer, module, data)
            seconds = time.monotonic() - started
            artifact_dir = self.run_dir / "artifact"
            if not trainer.is_global_zero:
                return TrainingResult(artifact_dir, self.run_dir, None)
            best = self._best(trainer)
            module.load_state_dict(best["state_dict"])
            device = trainer.strategy.root_device
            probabilities = _probabilities(module, data, device)
            report = metrics.report([row.label for row in test], probabilities=probabilities)
            self._log_test(trainer, test, probabilities, report)
        finally:
            reporting.finish(config)
        self.progress("Fitting the baselines on the same split")
        figures: dict[str, Any] = {
            "model": report,
            "majority": baseline.majority(train, test),
            "tfidf_logreg": baseline.tfidf_logreg(train, test),
        }
        with all_or_nothing(artifact_dir) as partial:
            figures["serving"] = write_artifact(
                module.model.eval(),
                tokenizer,
                encoder,
                partial,
                max_length=max_length,
                base_model=config.model_name,
                test_texts=[row.text for row in test],
                test_labels=[row.label for row in test],
                quantize=config.quantize,
                progress=self.progress,
            )
            figures["training"] = {
                # A spawned process keeps its trainer's counters to itself.
                "epochs": load_checkpoint(self.checkpoints / "last.ckpt")["epoch"] + 1,
                "best_epoch": best["epoch"] + 1,
                "best_val_accuracy": best[VALIDATION_METRICS]["val_accuracy"],
                "best_val_macro_f1": best[VALIDATION_METRICS]["val_macro_f1"],
                "monitor": config.monitor,
                "seconds": round(seconds, 2),
                "rows": {"train": len(train), "validation": len(validation), "test": len(test)},
                "precision": self.precision,
                "hyperparameters": config.as_dict(),
            }
            text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
            (partial / ArtifactFile.METRICS).write_text(text, encoding="utf-8")
        return TrainingResult(artifact_dir, self.run_dir, best["path"], figures)

    def _module(self) -> TicketClassificationModule:
        config = self.config
        schedule = None
        if config.lr_scheduler is not None:
            schedule = {"name": config.lr_scheduler, "warmup_ratio": config.warmup_ratio}
        # A resumed run reads all its weights from the checkpoint, so none are loaded before it.
        known = self.resumed["hyper_parameters"] if self.resumed else {}
        return TicketClassificationModule(
            config.model_name,
            len(CLASS_NAMES),
            config.learning_rate,
            config.weight_decay,
            schedule,
            head_learning_rate=config.head_learning_rate,
            trainable_layers=config.trainable_layers,
            local_files_only=config.local_files_only,
            encoder_config=known.get("encoder_config"),
            pooling=known.get("pooling"),
        )

    def _trainer(self, rows: int) -> Trainer:
        try:
            return self._built_trainer(rows)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise TrainingError(
                f"The training machine cannot run this configuration: {error} "
                "Check accelerator, devices, strategy and precision."
            ) from error

    def _built_trainer(self, rows: int) -> Trainer:
        config = self.config
        devices = hardware.device_count(config)
        spawned = devices > 1 and config.num_nodes == 1 and config.strategy == "auto"
        callbacks: list[Callback] = [
            ModelCheckpoint(
                dirpath=self.checkpoints,
                filename="epoch={epoch}-step={step}",
                auto_insert_metric_name=False,
                monitor=config.monitor,
                mode=_mode(config),
                save_top_k=1,
            ),
            # Lightning's own save_last skips the epochs that are not the best so far.
            ModelCheckpoint(
                dirpath=self.checkpoints, filename="last", enable_version_counter=False
            ),
        ]
        if config.patience is not None:
            callbacks.append(
                EarlyStopping(config.monitor, patience=config.patience, mode=_mode(config))
            )
        if devices == 1:
            # A callback of the caller's cannot be sent to a spawned process.
            callbacks.append(reporting.EpochProgress(self.progress))
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
            logger=reporting.loggers(config, self.run_dir),
            callbacks=callbacks,
            default_root_dir=self.run_dir,
            log_every_n_steps=max(
                1, min(10, rows // (config.batch_size * devices * config.num_nodes))
            ),
            enable_progress_bar=self.show_progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )

    def _train(
        self, trainer: Trainer, module: TicketClassificationModule, data: TicketDataModule
    ) -> None:
        """Run Lightning's loop; turn what it swallows or hides into what `fit` promises."""
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module, datamodule=data, ckpt_path=self.config.resume_from, weights_only=True
            )
        except SystemExit as stop:
            # Lightning answers Ctrl-C by leaving the program.
            if not trainer.interrupted:
                raise
            raise KeyboardInterrupt from stop
        except MisconfigurationException as error:
            raise TrainingError(f"Training cannot start: {error}") from error
        except OSError as error:
            raise TrainingError(f"Training stopped in {self.run_dir}: {error}") from error
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

    def _best(self, trainer: Trainer) -> dict[str, Any]:
        """Return the best checkpoint of this run and of the one it resumes, `path` added."""
        callback = trainer.checkpoint_callback
        path = getattr(callback, "best_model_path", "")
        if not path:
            raise TrainingError(
                f"No epoch was finished, so there is no model. See {self.run_dir}/metrics.csv."
            )
        best = load_checkpoint(Path(path)) | {"path": Path(path)}
        earlier = self._earlier_best()
        if earlier is not None:
            name, sign = self.config.monitor, 1 if _mode(self.config) == "max" else -1
            if sign * earlier[VALIDATION_METRICS][name] >= sign * best[VALIDATION_METRICS][name]:
                return earlier
        return best

    def _earlier_best(self) -> dict[str, Any] | None:
        if self.resumed is None:
            return None
        for name, state in self.resumed["callbacks"].items():
            path = Path(state.get("best_model_path") or "")
            judged = name.startswith("ModelCheckpoint") and state["monitor"] == self.config.monitor
            if judged and path.is_file():
                return load_checkpoint(path) | {"path": path}
        return None

    def _log_test(
        self,
        trainer: Trainer,
        test: Sequence[LabelledText],
        probabilities: npt.NDArray[np.float32],
        report: dict[str, Any],
    ) -> None:
        if trainer.strategy.launcher is not None:
            # The loggers lived in processes that have ended; metrics.json has the figures.
            return
        labels = [row.label for row in test]
        scores = probabilities.astype(np.float64)
        scores /= scores.sum(axis=1, keepdims=True)
        figures = {
            "test_loss": float(log_loss(labels, scores, labels=range(len(CLASS_NAMES)))),
            "test_accuracy": report["accuracy"],
            "test_macro_f1": report["macro_f1"],
        }
        for run_logger in trainer.loggers:
            run_logger.log_metrics(figures, step=trainer.global_step)
            run_logger.save()


def _mode(config: TrainingConfig) -> str:
    return "min" if config.monitor.endswith("loss") else "max"


def _require_rows(**splits: Sequence[LabelledText]) -> None:
    for name, rows in splits.items():
        if not rows:
            raise TrainingError(f"The {name} split is empty; training needs rows in every split.")


def _probabilities(
    module: TicketClassificationModule, data: TicketDataModule, device: torch.device
) -> npt.NDArray[np.float32]:
    """Return the test split's probabilities [rows, classes] in float32; leaves the model on CPU."""
    dataset = data.dataset("test")
    at_once = data.batch_size if device.type == "cuda" else _EVALUATED_AT_ONCE
    probabilities = np.zeros((len(dataset), len(CLASS_NAMES)), dtype=np.float32)
    module.eval().to(device)
    with torch.inference_mode():
        for rows in LengthBucketSampler(dataset, at_once):
            batch = {name: value.to(device) for name, value in dataset[rows].items()}
            probabilities[rows] = module.predict_step(batch, 0).cpu().numpy()
    module.cpu()
    return probabilities
