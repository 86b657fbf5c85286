"""Fine-tune a base model from one seed, and write the artifact of its best epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Trainer, seed_everything

from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.evaluation.calibration import cross_entropy, log_probabilities
from ticket_priority.ml.trainers.encoders import layers
from ticket_priority.ml.trainers.encoders.build import load_tokenizer
from ticket_priority.ml.trainers.encoders.resolve import Encoder, resolve
from ticket_priority.ml.trainers.export.comparison import ExportSource, HeldOutTexts
from ticket_priority.ml.trainers.export.onnx import Quantization, write_artifact
from ticket_priority.ml.trainers.runs import hardware
from ticket_priority.ml.trainers.runs.checkpoints import load_checkpoint
from ticket_priority.ml.trainers.runs.loggers import finish, quiet_lightning
from ticket_priority.ml.trainers.runs.splits import Splits
from ticket_priority.ml.trainers.transformer.activation_cache import ActivationCache
from ticket_priority.ml.trainers.transformer.datamodule import LengthBucketSampler, TicketDataModule
from ticket_priority.ml.trainers.transformer.loop import TrainingLoop
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

    `validation` and `test` hold its probabilities [rows, classes] for the two splits; `figures`
    say how the run went, ready for JSON.
    """

    source: ExportSource
    best_checkpoint: Path
    validation: Probabilities
    test: Probabilities
    figures: dict[str, Any]


class TransformerRun:
    """The steps of one run, which share the configuration and the run's folder.

    `resumed` is the checkpoint to continue, as `runs.checkpoints.read_checkpoint` returns it.
    Runs of several seeds may share one `activation_cache`. `soft_labels` [rows, classes] replace
    the labels to train on.
    """

    def __init__(
        self,
        config: TrainingConfig,
        run_dir: Path,
        progress: ProgressCallback,
        show_progress_bar: bool,
        resumed: dict[str, Any] | None = None,
        activation_cache: ActivationCache | None = None,
        soft_labels: Probabilities | None = None,
    ) -> None:
        self.config = config
        self.soft_labels = soft_labels
        self.progress = progress
        self.precision = hardware.precision(config)
        self.loop = TrainingLoop(
            config, run_dir, self.precision, progress, show_progress_bar, resumed
        )
        self.activation_cache = activation_cache or ActivationCache(
            torch.bfloat16 if self.precision == "bf16-mixed" else torch.float32
        )

    def train(self, splits: Splits) -> FittedTransformer | None:
        """Train and return the best epoch by `config.monitor`; None in any process but the first.

        Raises TrainingError and KeyboardInterrupt as `pipeline.fit` does.
        """
        config = self.config
        threads = torch.get_num_threads()
        try:
            with quiet_lightning(), hardware.freed_memory_kept(config):
                seed_everything(config.seed, workers=True, verbose=False)
                torch.set_num_threads(config.threads or hardware.usable_cores())
                return self._fitted(splits)
        finally:
            torch.set_num_threads(threads)
            finish(config)

    def write(
        self, fitted: FittedTransformer, directory: Path, test: Sequence[LabelledText]
    ) -> dict[str, Any]:
        """Write all files of the artifact but metrics.json; return the `serving` metrics."""
        return write_artifact(
            fitted.source,
            directory,
            HeldOutTexts.of(test, fitted.test),
            Quantization.of(self.config),
            progress=self.progress,
        )

    def _fitted(self, splits: Splits) -> FittedTransformer | None:
        config = self.config
        self.progress(f"Loading the base model {config.model_name}")
        encoder = resolve(config.model_name, local_files_only=config.local_files_only)
        data = self._data(splits, encoder)
        module = self._module()
        trainer = self.loop.trainer(len(splits.train))
        self.progress(
            f"Training on {len(splits.train)} texts, validating on {len(splits.validation)}, "
            f"in {self.precision}"
        )
        started = time.monotonic()
        with self._activations_cached(module, data):
            # Both compute the same. Measured on a CPU: in bf16 the backward pass of torch's fused
            # attention has a third of the speed.
            is_slow = hardware.on_cpu(config) and self.precision == "bf16-mixed"
            with layers.attention(module.model, "eager") if is_slow else nullcontext():
                self.loop.run(trainer, module, data)
            seconds = time.monotonic() - started
            if not trainer.is_global_zero:
                return None
            best = self.loop.best(trainer)
            module.load_state_dict(best["state_dict"])
            device = trainer.strategy.root_device
            with torch.autocast(device.type, torch.bfloat16, self.precision == "bf16-mixed"):
                validated = _probabilities(module, data, "validation", device)
        # Without the cache: the export is compared with these.
        tested = _probabilities(module, data, "test", device)
        _log_test(trainer, splits.test, tested)
        return FittedTransformer(
            source=ExportSource(
                module.model.eval(), data.tokenizer, encoder, data.max_length, config.model_name
            ),
            best_checkpoint=best["path"],
            validation=validated,
            test=tested,
            figures={
                # The counters of a trainer in a spawned process do not come back.
                "epochs": load_checkpoint(self.loop.checkpoints / "last.ckpt")["epoch"] + 1,
                "best_epoch": best["epoch"] + 1,
                "best_val_accuracy": best[VALIDATION_METRICS]["val_accuracy"],
                "best_val_macro_f1": best[VALIDATION_METRICS]["val_macro_f1"],
                "monitor": config.monitor,
                "seconds": round(seconds, 2),
                "rows": splits.sizes,
                "precision": self.precision,
                "hyperparameters": config.as_dict(),
            },
        )

    def _data(self, splits: Splits, encoder: Encoder) -> TicketDataModule:
        config = self.config
        tokenizer = load_tokenizer(encoder)
        return TicketDataModule(
            splits.train,
            splits.validation,
            splits.test,
            tokenizer,
            prefix=encoder.prefix,
            batch_size=config.batch_size,
            max_length=min(config.max_length, int(tokenizer.model_max_length)),
            seed=config.seed,
            num_workers=config.num_workers,
            balanced=config.class_weight == "balanced",
            soft_labels=self.soft_labels,
        )

    def _module(self) -> TicketClassificationModule:
        config = self.config
        schedule = {"name": config.lr_scheduler, "warmup_ratio": config.warmup_ratio}
        # A resumed run has its weights in the checkpoint, so the pretrained ones are not read.
        known = self.loop.resumed["hyper_parameters"] if self.loop.resumed else {}
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

    @contextmanager
    def _activations_cached(
        self, module: TicketClassificationModule, data: TicketDataModule
    ) -> Iterator[None]:
        """Cache the frozen layers' output, on a single CPU, where it fits in memory."""
        alone = hardware.on_cpu(self.config) and hardware.device_count(self.config) == 1
        if self.config.trainable_layers is not None and alone:
            lengths = [data.dataset(split).lengths for split in ("train", "validation")]
            if self.activation_cache.fits(lengths, layers.hidden_size(module.model)):
                module.activation_cache = self.activation_cache
        cache = module.activation_cache
        with cache.attached(module.model) if cache else nullcontext():
            yield
        module.activation_cache = None


def _log_test(trainer: Trainer, test: Sequence[LabelledText], probabilities: Probabilities) -> None:
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


def _probabilities(
    module: TicketClassificationModule, data: TicketDataModule, split: str, device: torch.device
) -> Probabilities:
    """Return a split's probabilities [rows, classes]; leave the model on the CPU."""
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
