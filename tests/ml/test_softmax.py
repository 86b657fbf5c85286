from __future__ import annotations

import numpy as np
import pytest

from ticket_priority.ml.softmax import log_softmax, softmax


def test_odds_are_the_exponential_of_the_difference() -> None:
    (row,) = softmax(np.array([[0.0, np.log(2), np.log(5)]]))
    assert row == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert np.exp(log_softmax(np.array([[0.0, np.log(2), np.log(5)]])))[0] == pytest.approx(row)


def test_a_higher_temperature_makes_answers_less_sure() -> None:
    scores = np.array([[0.0, 1.0, 4.0]])
    assert softmax(scores, 2.0) == pytest.approx(softmax(scores / 2.0))
    assert softmax(scores, 2.0).max() < softmax(scores).max()


@pytest.mark.parametrize("temperature", [5e-324, 1.0, 1e308])
def test_extreme_numbers_still_give_probabilities(temperature: float) -> None:
    answers = softmax(np.array([[1e308, -1e308, 0.0], [1e4, 1e4, -1e4]]), temperature)
    assert answers.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert answers[1, 0] == answers[1, 1]
