from __future__ import annotations

import numpy as np
import pytest

from ticket_priority.ml.evaluation.calibration import (
    cross_entropy,
    fit_temperature,
    log_probabilities,
)
from ticket_priority.ml.softmax import softmax


def _drawn(rows: int = 4000, *, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Return scores and labels that were drawn from the probabilities they stand for."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(rows, 3)) * 2
    probabilities = softmax(scores)
    labels = (draw.random(rows)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    return scores, labels.tolist()


@pytest.mark.parametrize("sharpened", [0.5, 1.0, 3.0])
def test_it_finds_by_how_much_scores_were_sharpened(sharpened: float) -> None:
    scores, labels = _drawn()
    assert fit_temperature(sharpened * scores, labels) == pytest.approx(sharpened, rel=0.06)


def test_it_lowers_the_loss_and_moves_no_answer() -> None:
    scores, labels = _drawn()
    wild = 5 * scores
    temperature = fit_temperature(wild, labels)
    truth = np.array(labels)
    assert cross_entropy(wild / temperature, truth) < cross_entropy(wild, truth)
    assert ((wild / temperature).argmax(axis=1) == wild.argmax(axis=1)).all()


def test_a_class_without_a_column_is_passed_over() -> None:
    scores, labels = _drawn(200)
    longer = np.concatenate((scores, scores))
    assert fit_temperature(longer, [*labels, *[-1] * 200]) == fit_temperature(scores, labels)
    assert fit_temperature(scores, [-1] * 200) == 1.0


def test_a_probability_of_zero_has_a_logarithm() -> None:
    assert np.isfinite(log_probabilities(np.array([[0.0, 1.0, 0.0]], np.float32))).all()
