from __future__ import annotations

import pytest

from ticket_priority.ml.hyperparameters import presets
from ticket_priority.ml.types import TrainingConfig


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_a_possible_configuration(name: str) -> None:
    assert isinstance(presets.configure("embedded", name), TrainingConfig)


def test_what_is_said_later_wins() -> None:
    config = presets.configure("embedded", "best", {"seeds": 2, "seed": 1}, {"seed": 5})
    assert (config.seeds, config.seed, config.ensemble) == (2, 5, True)


def test_the_baseline_is_a_linear_model_unless_another_is_named() -> None:
    assert presets.configure("embedded", "baseline").model_name == "linear"
    changed = presets.configure("linear", "baseline", {"model_name": "some/encoder"})
    assert changed.model_name == "some/encoder"
    assert not changed.ensemble


def test_the_step_fits_the_encoder() -> None:
    small = presets.configure("embedded").learning_rate
    assert small > presets.configure("distilbert-base-multilingual-cased").learning_rate
    assert (
        presets.configure("embedded", "production", {"learning_rate": 1e-5}).learning_rate == 1e-5
    )


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ValueError, match="'fast'.*baseline, production, best"):
        presets.configure("embedded", "fast")
