from __future__ import annotations

from typing import Any

import pytest

from ticket_priority.ml.types import Classification, TrainingConfig


def test_a_classification_names_its_class() -> None:
    answer = Classification((0.1, 0.2, 0.7))
    assert (answer.priority, answer.label, answer.confidence) == (2, "high", 0.7)


def test_a_tie_goes_to_the_higher_priority() -> None:
    assert Classification((0.4, 0.4, 0.2)).label == "medium"


@pytest.mark.parametrize(
    "values",
    [
        {"max_length": 513},
        {"max_epochs": 0},
        {"learning_rate": 0.0},
        {"head_learning_rate": -1.0},
        {"lr_scheduler": "step"},
        {"monitor": "accuracy"},
        {"trainable_layers": -1},
        {"soft_labels": 1.0},
        {"patience": 0},
        {"wandb_mode": "maybe"},
        {"model_name": ""},
        {"devices": 0},
        {"devices": "0"},
        {"resume_from": "last.ckpt", "model_name": "linear"},
    ],
)
def test_an_impossible_configuration_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        TrainingConfig(**values)
