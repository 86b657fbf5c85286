from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest

from ticket_priority.ml import metrics


def test_figures_of_a_known_case() -> None:
    figures = metrics.report([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0])
    assert figures["n"] == 6
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert figures["macro_f1"] == pytest.approx((0.5 + 0.8 + 2 / 3) / 3)
    assert figures["confusion_matrix"] == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert figures["per_class"]["high"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }
    assert "calibration_error" not in figures


def test_kappa_punishes_a_far_miss_more_than_a_near_one() -> None:
    truth = [0, 0, 1, 1, 2, 2]
    near = metrics.report(truth, [0, 0, 1, 1, 2, 1])["weighted_kappa"]
    far = metrics.report(truth, [0, 0, 1, 1, 2, 0])["weighted_kappa"]
    assert far < near < 1.0
    assert metrics.report(truth, truth)["weighted_kappa"] == pytest.approx(1.0)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = [[0.1, 0.1, 0.8]] * 10
    figures = metrics.report([2] * 5 + [0] * 5, probabilities=probabilities)
    assert figures["calibration_error"] == pytest.approx(0.3, abs=1e-6)
    assert figures["accuracy"] == 0.5


def test_a_tie_goes_to_the_graver_class() -> None:
    probabilities = np.array([[0.4, 0.2, 0.4], [0.5, 0.5, 0.0]], dtype=np.float32)
    assert metrics.most_probable(probabilities) == [2, 1]


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [([1, 1, 1], [1, 1, 1]), ([0, 1], [0, 1]), ([2], [0]), ([0, 0], [2, 2])],
    ids=["one class", "a class absent", "one row", "never right"],
)
def test_figures_are_defined_whatever_classes_occur(
    labels: list[int], predicted: list[int]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = metrics.report(labels, predicted)
    assert all(np.isfinite(value) for value in _numbers(figures))
    assert np.sum(figures["confusion_matrix"]) == len(labels)


def test_figures_are_plain_json() -> None:
    figures = metrics.report(np.array([0, 1, 2]), probabilities=np.eye(3))  # type: ignore[arg-type]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_no_rows_and_no_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        metrics.report([], [])
    with pytest.raises(ValueError, match="probabilities"):
        metrics.report([1])


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in _numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in _numbers(part)]
    return [float(value)]
