"""One run of Lightning: a base model fine-tuned from one seed, its best epoch, its artifact."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch import nn
from transformers import PreTrainedTokenizerFast

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.evaluation.calibration import cross_entropy, log_probabilities
from ticket_priority.ml.trainers.encoders.build import load_tokenizer
from ticket_priority.ml.trainers.encoders.layers import attention, hidden_size
from ticket_priority.ml.trainers.encoders.resolve import Encoder, resolve
from ticket_priority.ml.trainers.export.onnx import write_artifact
from ticket_priority.ml.trainers.runs import hardware
from ticket_priority.ml.trainers.runs import loggers as reporting
from ticket_priority.ml.trainers.runs.checkpoints import load_checkpoint
from ticket_priority.ml.trainers.transformer.activation_cache import ActivationCache
from ticket_priority.ml.trainers.transformer.datamodule import LengthBucketSampler, TicketDataModule
from ticket_priority.ml.trainers.transformer.module import (
    VALIDATION_METRICS,
    TicketClassificationModule,
)
from ticket_priority.ml.types import CLASS_NAMES, LabelledText, ProgressCallback, TrainingConfig

Probabilities = npt.NDArray[np.float32]

_EVALUATED_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class FittedTransformer:
    """The best epoch of a run.

    `validation` and `test` hold its probabilities [rows, classes] for the two splits, in their
    order; `figures` says how the run went, ready for JSON.
    """

    model: nn.Module
    encoder: Encoder
    tokenizer: PreTrainedTokenizerFast
    max_length: int
    best_checkpoint: Path
    validation: Probabilities
    test: Probabilities
    figures: dict[str, Any]


class TransformerRun:
    """The steps of one run, which share the configuration and the run's folder.

    `resumed` is the checkpoint to go on from, as `runs.read_checkpoint` gives it. `memory` may be
    shared by runs of other seeds. `soft_labels` [rows, classes] stand for the labels to train on.
    """

    def __init__(
        self,
        config: TrainingConfig,
        run_dir: Path,
        progress: ProgressCallback,
        show_progress_bar: bool,
        resumed: dict[str, Any] | None = None,
        memory: ActivationCache | None = None,
        soft_labels: Probabilities | None = None,
    ) -> None:
        self.config = config
        self.soft_labels = soft_labels
        self.run_dir = run_dir
        self.checkpoints = run_dir / "checkpoints"
        self.progress = progress
        self.show_progress_bar = show_progress_bar
        self.resumed = resumed
        self.precision = hardware.precision(config)
        self.memory = memory or ActivationCache(
            torch.bfloat16 if self.precision == "bf16-mixed" else torch.float32
        )

    def train(
        self,
        train: Sequence[LabelledText],
        validation: Sequence[LabelledText],
        test: Sequence[LabelledText],
    ) -> FittedTransformer | None:
        """Train and return the best epoch by `config.monitor`; None in any process but the first.

        Raises TrainingError and KeyboardInterrupt as `trainer.fit` does.
        """
        config = self.config
        threads = torch.get_num_threads()
        try:
            with reporting.quiet_lightning(), hardware.freed_memory_kept(config):
                seed_everything(config.seed, workers=True, verbose=False)
                torch.set_num_threads(config.threads or hardware.usable_cores())
                return self._fitted(train, validation, test)
        finally:
            torch.set_num_threads(threads)
            reporting.finish(config)

    def write(
        self, fitted: FittedTransformer, directory: Path, test: Sequence[LabelledText]
    ) -> dict[str, Any]:
        """Write the artifact's files but metrics.json; return the `serving` figures."""
        return write_artifact(
            fitted.model,
            fitted.tokenizer,
            fitted.encoder,
            directory,
            max_length=fitted.max_length,
            base_model=self.config.model_name,
            test_texts=[row.text for row in test],
            test_labels=[row.label for row in test],
            test_probabilities=fitted.test,
            quantize=self.config.quantize,
            progress=self.progress,
        )

    def _fitted(
        self,
        train: Sequence[LabelledText],
        validation: Sequence[LabelledText],
        test: Sequence[LabelledText],
    ) -> FittedTransformer | None:
        config = self.config
        self.progress(f"Loading the base model {config.model_name}")
        encoder = resolve(config.model_name, local_files_only=config.local_files_only)
        tokenizer = load_tokenizer(encoder)
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
            balanced=config.class_weight == "balanced",
            soft_labels=self.soft_labels,
        )
        module = self._module()
        trainer = self._trainer(len(train))
        self.progress(
            f"Training on {len(train)} texts, validating on {len(validation)}, in {self.precision}"
        )
        started = time.monotonic()
        with self._remembering(module, data):
            with self._attention(module):
                self._train(trainer, module, data)
            seconds = time.monotonic() - started
            if not trainer.is_global_zero:
                return None
            best = self._best(trainer)
            module.load_state_dict(best["state_dict"])
            device = trainer.strategy.root_device
            with torch.autocast(device.type, torch.bfloat16, self.precision == "bf16-mixed"):
                validated = _probabilities(module, data, "validation", device)
        # Without the memory: the export is compared with these.
        tested = _probabilities(module, data, "test", device)
        self._log_test(trainer, test, tested)
        return FittedTransformer(
            model=module.model.eval(),
            encoder=encoder,
            tokenizer=tokenizer,
            max_length=max_length,
            best_checkpoint=best["path"],
            validation=validated,
            test=tested,
            figures={
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
            },
        )

    def _module(self) -> TicketClassificationModule:
        config = self.config
        schedule = {"name": config.lr_scheduler, "warmup_ratio": config.warmup_ratio}
        # A resumed run reads all its weights from the checkpoint, so none are loaded before it.
        known = self.resumed["hyper_parameters"] if self.resumed else {}
        return TicketClassificationModule(
            config.model_name,
            len(CLASS_NAMES),
            config.learning_rate,
            config.weight_decay,
            schedule if config.lr_scheduler else None,
            head_learning_rate=config.head_learning_rate,
            trainable_layers=config.trainable_layers,
            layer_decay=config.layer_decay,
            attention_dropout=config.attention_dropout,
            hidden_dropout=config.hidden_dropout,
            ordinal_smoothing=config.ordinal_smoothing,
            ordinal_loss=config.ordinal_loss,
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
        steps = rows // (config.batch_size * devices * config.num_nodes)
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
            ModelCheckpoint(self.checkpoints, "last", enable_version_counter=False),
            hardware.OverflowGuard(),
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
            log_every_n_steps=max(1, min(10, steps)),
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

    def _attention(self, module: TicketClassificationModule) -> AbstractContextManager[None]:
        """Choose the attention that learns fastest; what it computes is the same."""
        if hardware.on_cpu(self.config) and self.precision == "bf16-mixed":
            # Measured: torch's fused attention goes back through bf16 at a third of the speed.
            return attention(module.model, "eager")
        return nullcontext()

    @contextmanager
    def _remembering(
        self, module: TicketClassificationModule, data: TicketDataModule
    ) -> Iterator[None]:
        """Keep what the frozen layers make of what is read often, on one CPU, if memory allows."""
        alone = hardware.on_cpu(self.config) and hardware.device_count(self.config) == 1
        if self.config.trainable_layers is None or not alone:
            yield
            return
        lengths = [data.dataset(split).lengths for split in ("train", "validation")]
        if not self.memory.fits(lengths, hidden_size(module.model)):
            yield
            return
        module.memory = self.memory
        try:
            with self.memory.attached(module.model):
                yield
        finally:
            module.memory = None

    def _best(self, trainer: Trainer) -> dict[str, Any]:
        """Return the best checkpoint of this run and of the one it resumes, `path` added."""
        callback = trainer.checkpoint_callback
        if not (path := getattr(callback, "best_model_path", "")):
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
        self, trainer: Trainer, test: Sequence[LabelledText], probabilities: Probabilities
    ) -> None:
        if trainer.strategy.launcher is not None:
            # The loggers lived in processes that have ended; metrics.json has the figures.
            return
        labels = [row.label for row in test]
        report = metrics.report(labels, probabilities=probabilities)
        figures = {
            "test_loss": cross_entropy(log_probabilities(probabilities), np.array(labels)),
            "test_accuracy": report["accuracy"],
            "test_macro_f1": report["macro_f1"],
        }
        for run_logger in trainer.loggers:
            run_logger.log_metrics(figures, step=trainer.global_step)
            run_logger.save()


def _mode(config: TrainingConfig) -> str:
    return "min" if config.monitor.endswith("loss") else "max"


def _probabilities(
    module: TicketClassificationModule, data: TicketDataModule, split: str, device: torch.device
) -> Probabilities:
    """Return a split's probabilities [rows, classes] in float32; leaves the model on the CPU."""
    dataset = data.dataset(split)
    at_once = data.batch_size if device.type == "cuda" else _EVALUATED_AT_ONCE
    probabilities = np.zeros((len(dataset), len(CLASS_NAMES)), dtype=np.float32)
    module.eval().to(device)
    with torch.inference_mode():
        for rows in LengthBucketSampler(dataset, at_once):
            batch = {name: value.to(device) for name, value in dataset[rows].items()}
            probabilities[rows] = module.predict_step(batch, 0).cpu().numpy()
    module.cpu()
    return probabilities
