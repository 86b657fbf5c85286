from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import get_cosine_schedule_with_warmup
from transformers.modeling_outputs import SequenceClassifierOutput

from ticket_priority.ml.numbers import is_number, is_whole
from ticket_priority.ml.trainers.encoders import layers
from ticket_priority.ml.trainers.encoders.build import build_model, build_model_from_config
from ticket_priority.ml.trainers.encoders.resolve import resolve
from ticket_priority.ml.trainers.transformer import losses
from ticket_priority.ml.trainers.transformer.activation_cache import ActivationCache

VALIDATION_METRICS: Final = "validation_metrics"
"""The checkpoint key under which the validation metrics of its epoch are kept."""

_SCHEDULE_KEYS: Final = {"name", "warmup_ratio", "warmup_steps"}


class TicketClassificationModule(LightningModule):
    """A classifier of ticket texts and how it is trained.

    `learning_rate` is the encoder's, `head_learning_rate` the classification head's (None: the
    same). `lr_scheduler_config` is None for a constant rate or
    `{"name": "cosine", "warmup_ratio": 0.1}` (or `"warmup_steps": 100`): linear warm-up, then
    cosine decay to zero over the run's optimiser steps. `trainable_layers` is None to train
    everything, or how many of the top layers train beside the head; each layer's rate is
    `layer_decay` times that of the layer above. `attention_dropout` and `hidden_dropout` are None
    for the base model's own. `ordinal_smoothing` and `ordinal_loss` are those of
    `losses.ordinal_loss`.

    `encoder_config` and `pooling` describe the architecture. Without them the base model is
    resolved and its pretrained weights are read. Both are kept as hyperparameters, so that
    `load_from_checkpoint(path, local_files_only=True)` needs neither network nor base model.

    `activation_cache` may be set to reuse the output of the frozen layers; batches then need
    `rows`.

    Raises ValueError on a bad `lr_scheduler_config`, EncoderUnavailableError when the base model
    cannot be found, TrainingError when its layers are needed and cannot be found.
    """

    def __init__(
        self,
        model_name: str = "distilbert-base-multilingual-cased",
        num_classes: int = 3,
        learning_rate: float = 5e-5,
        weight_decay: float = 0.01,
        lr_scheduler_config: Mapping[str, Any] | None = None,
        *,
        head_learning_rate: float | None = None,
        trainable_layers: int | None = None,
        layer_decay: float = 1.0,
        attention_dropout: float | None = None,
        hidden_dropout: float | None = None,
        ordinal_smoothing: float = 0.0,
        ordinal_loss: float = 0.0,
        local_files_only: bool = False,
        encoder_config: Mapping[str, Any] | None = None,
        pooling: str | None = None,
    ) -> None:
        super().__init__()
        _check_schedule(lr_scheduler_config)
        if (encoder_config is None) != (pooling is None):
            raise ValueError("encoder_config and pooling describe one model: give both or neither")
        if encoder_config is None or pooling is None:
            encoder = resolve(model_name, local_files_only=local_files_only)
            pooling = encoder.pooling
            self.model = build_model(
                encoder,
                num_classes,
                attention_dropout=attention_dropout,
                hidden_dropout=hidden_dropout,
            )
            config: Any = self.model.config
            encoder_config = json.loads(config.to_json_string(use_diff=False))
        else:
            self.model = build_model_from_config(dict(encoder_config), pooling, num_classes)
        layers.freeze(self.model, trainable_layers)
        # Plain values only, so that torch can load the checkpoint with weights_only=True.
        # Lightning saves the arguments by what these names hold now.
        encoder_config = dict(encoder_config)
        lr_scheduler_config = dict(lr_scheduler_config) if lr_scheduler_config else None
        self.save_hyperparameters()
        self.activation_cache: ActivationCache | None = None
        # torchmetrics averages accuracy over classes by default; plain accuracy is "micro".
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_macro_f1 = MulticlassF1Score(num_classes, average="macro")
        self.test_macro_f1 = MulticlassF1Score(num_classes, average="macro")

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Score a batch.

        `input_ids` and `attention_mask` are int64 [batch, seq], `labels` int64 [batch] class ids.
        The output holds `logits` [batch, num_classes] and `loss`, the mean cross-entropy as a
        scalar, or None without labels.
        """
        output: SequenceClassifierOutput = self.model(
            input_ids=input_ids, attention_mask=attention_mask, labels=labels
        )
        return output

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of the batch, each row's part multiplied by its weight if any.

        `soft_labels` [batch, num_classes] in the batch replace `labels` in the loss.
        """
        logits = self._logits(batch)
        parts = losses.ordinal_loss(
            logits,
            batch.get("soft_labels", batch["labels"]),
            smoothing=self.hparams["ordinal_smoothing"],
            distance_weight=self.hparams["ordinal_loss"],
        )
        loss = (parts * batch["weights"] if "weights" in batch else parts).mean()
        size = len(batch["labels"])
        self.train_accuracy.update(logits, batch["labels"])
        self.log("train_loss", loss, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True)
        self.log(
            "train_accuracy", self.train_accuracy, on_step=False, on_epoch=True, batch_size=size
        )
        return loss

    def on_train_epoch_start(self) -> None:
        """Turn off dropout in the frozen modules, which Lightning has set to train mode."""
        layers.set_frozen_to_eval(self.model)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Update and log the validation metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Update and log the test metrics."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return probabilities [batch, num_classes] in float32."""
        return nn.functional.softmax(self._logits(batch), dim=-1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a rate for the head and each layer; biases and norms do not decay."""
        # Fused takes a tenth of the time on a CPU; on a GPU it does not allow clipping in fp16.
        fused = self.device.type == "cpu"
        optimizer = AdamW(self._parameter_groups(), lr=self.hparams["learning_rate"], fused=fused)
        if fused:
            # Lightning clips no gradients of an optimiser that may unscale them. This one does not.
            optimizer._step_supports_amp_scaling = False
        schedule = self.hparams["lr_scheduler_config"]
        if schedule is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        if (warmup := schedule.get("warmup_steps")) is None:
            warmup = round(schedule.get("warmup_ratio", 0.0) * steps)
        scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
        by_step: LRSchedulerConfigType = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": by_step}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the validation metrics of the epoch."""
        checkpoint[VALIDATION_METRICS] = {
            name: float(value)
            for name, value in self.trainer.callback_metrics.items()
            if name.startswith("val_")
        }

    def _logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Return [batch, num_classes] in float32."""
        cache = self.activation_cache
        with nullcontext() if cache is None else cache.rows_of(batch):
            output = self(batch["input_ids"], batch["attention_mask"])
        logits: Tensor = output.logits.float()
        return logits

    def _evaluate(self, batch: dict[str, Tensor], stage: str) -> None:
        accuracy, macro_f1 = getattr(self, f"{stage}_accuracy"), getattr(self, f"{stage}_macro_f1")
        logits = self._logits(batch)
        loss = nn.functional.cross_entropy(logits, batch["labels"])
        size = len(batch["labels"])
        accuracy.update(logits, batch["labels"])
        macro_f1.update(logits, batch["labels"])
        self.log(f"{stage}_loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        self.log(f"{stage}_accuracy", accuracy, prog_bar=True, batch_size=size)
        self.log(f"{stage}_macro_f1", macro_f1, batch_size=size)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        rate = self.hparams["learning_rate"]
        head_rate = self.hparams["head_learning_rate"] or rate
        layer_decay = self.hparams["layer_decay"]
        head = {id(parameter) for parameter in layers.head_parameters(self.model)}
        depths = layers.layer_depths(self.model) if layer_decay != 1.0 else {}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                continue
            # Biases and norm weights are vectors; everything that should decay is a matrix.
            decay = self.hparams["weight_decay"] if parameter.ndim > 1 else 0.0
            layer_rate = rate * layer_decay ** depths.get(id(parameter), 0)
            key = (head_rate if id(parameter) in head else layer_rate, decay)
            groups.setdefault(key, []).append(parameter)
        return [
            {"params": parameters, "lr": lr, "weight_decay": decay}
            for (lr, decay), parameters in groups.items()
        ]


def _check_schedule(schedule: Mapping[str, Any] | None) -> None:
    if schedule is None:
        return
    if not isinstance(schedule, Mapping) or schedule.get("name") != "cosine":
        raise ValueError(
            'lr_scheduler_config must be None or a mapping such as {"name": "cosine", '
            f'"warmup_ratio": 0.1}}, not {schedule!r}'
        )
    if unknown := set(schedule) - _SCHEDULE_KEYS:
        raise ValueError(
            f"lr_scheduler_config does not know {sorted(unknown)}; it takes "
            f"{sorted(_SCHEDULE_KEYS)}"
        )
    ratio, steps = schedule.get("warmup_ratio"), schedule.get("warmup_steps")
    if ratio is not None and steps is not None:
        raise ValueError("lr_scheduler_config takes warmup_ratio or warmup_steps, not both")
    if ratio is not None and not (is_number(ratio) and 0 <= ratio < 1):
        raise ValueError("lr_scheduler_config: warmup_ratio must be at least 0 and below 1")
    if steps is not None and not (is_whole(steps) and steps >= 0):
        raise ValueError("lr_scheduler_config: warmup_steps must be a whole number of at least 0")
