"""Named sets of hyperparameters. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ticket_priority.ml.types import TrainingConfig

DEFAULT_PRESET: Final = "production"

EMBEDDED: Final = "embedded"
"""The model name of the base model that installs from PyPI."""

_FINE_TUNING: Final[Mapping[str, Any]] = {
    "max_epochs": 5,
    "batch_size": 16,
    "max_length": 192,
    "head_learning_rate": 1e-3,
    "lr_scheduler": "cosine",
    "trainable_layers": 4,
    "layer_decay": 0.9,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "class_weight": "balanced",
    "ordinal_loss": 0.5,
    "soft_labels": 0.4,
    "patience": None,
    "ensemble": True,
    "few_labels": 1000,
}

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "baseline": {"model_name": "linear"},
    "production": _FINE_TUNING,
    "best": {**_FINE_TUNING, "max_length": 512, "seeds": 3},
}

_LEARNING_RATES: Final[Mapping[str, float]] = {EMBEDDED: 3e-4}
"""By base model, where a preset fine-tunes it: a small encoder needs a larger rate."""


def configure(
    model_name: str, preset: str = DEFAULT_PRESET, *changes: Mapping[str, Any]
) -> TrainingConfig:
    """Return a preset's configuration for a model, with `changes` over it, the last one strongest.

    A preset may name another model than `model_name`; a change may name yet another. Raises
    ValueError on an unknown preset or an impossible value, TypeError on an unknown field.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; choose {', '.join(PRESETS)}")
    values: dict[str, Any] = {"model_name": model_name, **PRESETS[preset]}
    for change in changes:
        values |= change
    rate = _LEARNING_RATES.get(values["model_name"])
    if rate is not None and preset != "baseline":
        values.setdefault("learning_rate", rate)
    return TrainingConfig(**values)
