from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

from ticket_priority.exceptions import EncoderUnavailableError, TrainingError
from ticket_priority.ml.trainers.encoders.resolve import MEAN, NATIVE, Encoder

# The names of each dropout in the families of models.
_ATTENTION_DROPOUT: Final = ("attention_probs_dropout_prob", "attention_dropout")
_HIDDEN_DROPOUT: Final = (
    "hidden_dropout_prob",
    "dropout",
    "seq_classif_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "classifier_dropout",
)


class MeanPoolingClassifier(nn.Module):
    """An encoder, the masked mean over its tokens, dropout, and a linear head."""

    def __init__(self, encoder: transformers.PreTrainedModel, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        self.config.num_labels = num_classes
        self.dropout = nn.Dropout(getattr(self.config, "hidden_dropout_prob", 0.1))
        self.head = nn.Linear(self.config.hidden_size, num_classes)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Score a batch.

        `input_ids` and `attention_mask` are [batch, seq], `labels` [batch] class ids; the output
        holds logits [batch, classes] and, with labels, the mean cross-entropy as a scalar loss.
        """
        logits = self.head(self.dropout(self.pool(input_ids, attention_mask)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def pool(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the mean of each text's tokens [batch, hidden]; both inputs are [batch, seq]."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled: torch.Tensor = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        return pooled


def load_tokenizer(encoder: Encoder) -> PreTrainedTokenizerFast:
    """Load the base model's tokenizer. Raises EncoderUnavailableError when it has no fast one."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            encoder.location, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:
        # transformers raises many types for a bad folder.
        raise EncoderUnavailableError(
            f"The tokenizer in {encoder.location} cannot be loaded: {error}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise EncoderUnavailableError(
            f"The tokenizer in {encoder.location} has no tokenizer.json form, which serving needs."
            " Choose a base model with a fast tokenizer."
        )
    return tokenizer


def build_model(
    encoder: Encoder,
    num_classes: int,
    *,
    attention_dropout: float | None = None,
    hidden_dropout: float | None = None,
) -> nn.Module:
    """Build a classifier on the base model's pretrained weights, in float32, in train mode.

    The head is new; `attention_dropout` and `hidden_dropout` replace the base model's own. The
    model takes `input_ids` and `attention_mask` [batch, seq] and optional `labels` [batch], and
    returns a SequenceClassifierOutput with logits [batch, `num_classes`].
    Raises EncoderUnavailableError when the weights cannot be read.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    options = local | {"use_safetensors": True, "dtype": torch.float32}
    try:
        with _without_load_report():
            config = AutoConfig.from_pretrained(encoder.location, **local)
            _drop_implementations(config)
            dropouts = {_ATTENTION_DROPOUT: attention_dropout, _HIDDEN_DROPOUT: hidden_dropout}
            for names, probability in dropouts.items():
                for name in names:
                    if probability is not None and hasattr(config, name):
                        setattr(config, name, probability)
            if encoder.pooling == MEAN:
                options |= _without_pooler(config.model_type)
                base = AutoModel.from_pretrained(encoder.location, config=config, **options)
                return MeanPoolingClassifier(base, num_classes).train()
            config.num_labels = num_classes
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                encoder.location, config=config, ignore_mismatched_sizes=True, **options
            )
    except Exception as error:
        raise EncoderUnavailableError(
            f"The base model in {encoder.location} cannot be loaded: {error}"
        ) from error
    return cast(nn.Module, model.train())


def build_model_from_config(config: dict[str, Any], pooling: str, num_classes: int) -> nn.Module:
    """Build the same classifier with random weights, without network or files.

    `config` is the base model's configuration as a dictionary and must hold `model_type`.
    Raises TrainingError when it describes no model that transformers knows.
    """
    values = dict(config)
    model_type = str(values.pop("model_type", ""))
    for name in ("dtype", "torch_dtype", "id2label", "label2id", "num_labels"):
        values.pop(name, None)
    try:
        if pooling not in (NATIVE, MEAN):
            raise ValueError(f"unknown pooling {pooling!r}")
        built: PreTrainedConfig = AutoConfig.for_model(model_type, **values)
        built.num_labels = num_classes
        _drop_implementations(built)
        options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
        factory: Any = transformers
        if pooling == NATIVE:
            native = factory.AutoModelForSequenceClassification.from_config(built, **options)
            return cast(nn.Module, native)
        options |= _without_pooler(model_type)
        return MeanPoolingClassifier(factory.AutoModel.from_config(built, **options), num_classes)
    except Exception as error:
        raise TrainingError(
            f"No classifier can be built from this configuration ({model_type or 'no model_type'}):"
            f" {error}"
        ) from error


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Hide transformers' report of missing weights: a new head is always among them."""
    logging: Any = transformers.utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _drop_implementations(config: PreTrainedConfig) -> None:
    """Drop what the configuration says of how attention and experts are computed.

    It may name kernels on the hub: code that would be downloaded and run.
    """
    settable = cast(Any, config)
    settable._attn_implementation = settable._experts_implementation = None


def _without_pooler(model_type: str) -> dict[str, Any]:
    """Return the option that leaves out a pooler, which mean pooling would never train."""
    pooled = {"bert", "roberta", "xlm-roberta", "camembert", "ernie", "data2vec-text"}
    return {"add_pooling_layer": False} if model_type in pooled else {}
