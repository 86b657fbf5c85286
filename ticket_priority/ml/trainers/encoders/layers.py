"""The layers of a classifier: which of them train, and how attention is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.trainers.encoders.build import MeanPoolingClassifier


def hidden_size(model: nn.Module) -> int:
    """Return the length of the encoder's token vectors."""
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
    return list(takewhile(_is_frozen, _layers(model)))


def set_frozen_to_eval(model: nn.Module) -> None:
    """Put the modules that do not train in eval mode, so that they have no dropout."""
    for module in model.modules():
        if _is_frozen(module):
            module.eval()


@contextmanager
def attention(model: nn.Module, implementation: str) -> Iterator[None]:
    """Compute attention by one of transformers' implementations within the block."""
    base = cast(PreTrainedModel, _base(model))
    before = base.config._attn_implementation
    base.set_attn_implementation(implementation)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def layer_depths(model: nn.Module) -> dict[int, int]:
    """Return how far below the top layer each parameter of the encoder lies, by `id(parameter)`.

    The top layer has depth 0, the embeddings one more than the lowest layer. Raises TrainingError
    when the layers cannot be found.
    """
    layers = list(_layers(model))
    found = {id(parameter): len(layers) for parameter in _base(model).parameters()}
    for depth, layer in enumerate(reversed(layers)):
        found |= {id(parameter): depth for parameter in layer.parameters()}
    return found


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


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
