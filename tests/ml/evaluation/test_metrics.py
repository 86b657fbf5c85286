from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, precision_recall_fscore_support

from ticket_priority.conf import GATE_METRICS
from ticket_priority.ml.evaluation import metrics


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


def test_a_tie_goes_to_the_higher_priority() -> None:
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


@pytest.fixture(scope="module")
def answers() -> tuple[Any, Any]:
    """Labels of 10,000 rows, and probabilities that are right more often than not."""
    draw = np.random.default_rng(1)
    labels = draw.choice(3, 10_000, p=[0.5, 0.35, 0.15])
    probabilities = draw.dirichlet([1, 1, 1], len(labels))
    probabilities[np.arange(len(labels)), labels] += 0.4
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_figures_are_those_of_scikit_learn(answers: tuple[Any, Any]) -> None:
    labels, probabilities = answers
    figures = metrics.report(labels, probabilities=probabilities)
    chosen = probabilities.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, chosen)
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, chosen, average="macro"))
    kappa = cohen_kappa_score(labels, chosen, weights="quadratic")
    assert figures["weighted_kappa"] == pytest.approx(kappa)
    for index, line in enumerate(figures["per_class"].values()):
        found = [precision[index], recall[index], f1[index], support[index]]
        assert list(line.values()) == pytest.approx(found)


class TestIntervals:
    def test_they_are_those_of_a_plain_bootstrap(self, answers: tuple[Any, Any]) -> None:
        labels, probabilities = answers[0][:400], answers[1][:400]
        chosen = probabilities.argmax(axis=1)
        draw = np.random.default_rng(2)
        drawn = [draw.integers(0, 400, 400) for _ in range(1000)]
        scores = [f1_score(labels[rows], chosen[rows], average="macro") for rows in drawn]
        found = metrics.report(labels, chosen)["intervals"]["macro_f1"]
        assert found == pytest.approx(np.percentile(scores, [2.5, 97.5]), abs=0.01)

    def test_near_copies_are_drawn_together_and_make_them_wider(self) -> None:
        """Forty texts, each ten times, tell no more than forty texts."""
        labels = [place % 3 for place in range(40)]
        chosen = [label if place % 4 else 0 for place, label in enumerate(labels)]
        once = metrics.report(labels, chosen)["intervals"]
        groups = [f"g{place}" for place in range(40)] * 10
        grouped = metrics.report(labels * 10, chosen * 10, groups=groups)["intervals"]
        alone = metrics.report(labels * 10, chosen * 10)["intervals"]
        assert grouped["units"] == once["units"] == 40
        assert grouped["accuracy"] == once["accuracy"]
        assert _width(grouped["accuracy"]) > 2.5 * _width(alone["accuracy"])

    def test_rows_without_a_group_stand_alone(self) -> None:
        labels, chosen = [0, 1, 2, 1], [0, 1, 1, 1]
        ungrouped = metrics.report(labels, chosen, groups=["", "", "", ""])
        assert ungrouped == metrics.report(labels, chosen)

    def test_they_hold_the_figure_and_are_the_same_every_time(
        self, answers: tuple[Any, Any]
    ) -> None:
        labels, probabilities = answers
        figures = metrics.report(labels, probabilities=probabilities)
        assert figures == metrics.report(labels, probabilities=probabilities)
        for name in metrics.FIGURES:
            low, high = figures["intervals"][name]
            assert low < figures[name] < high
        for name, line in figures["per_class"].items():
            for figure in ("precision", "recall"):
                low, high = figures["intervals"]["per_class"][name][figure]
                assert low < line[figure] < high

    def test_a_class_that_never_occurs_has_none(self) -> None:
        per_class = metrics.report([0, 1, 1], [0, 1, 0])["intervals"]["per_class"]
        assert per_class["high"] == {}
        assert set(per_class["low"]) == {"precision", "recall"}

    def test_ten_thousand_rows_take_no_time(self, answers: tuple[Any, Any]) -> None:
        labels, probabilities = answers
        groups = [str(place // 2) for place in range(len(labels))]
        started = time.process_time()
        metrics.report(labels, probabilities=probabilities, groups=groups)
        assert time.process_time() - started < 1.5


def test_coverage_says_how_precise_the_confident_answers_are(answers: tuple[Any, Any]) -> None:
    labels, probabilities = answers
    points = metrics.report(labels, probabilities=probabilities)["coverage"]
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    assert len(points) == 20
    assert points[-1]["share"] == 1.0
    assert points[-1]["precision"] == pytest.approx(is_right.mean())
    tenth = points[1]
    assert tenth["share"] == pytest.approx(0.1)
    assert tenth["precision"] == pytest.approx(is_right[np.argsort(-confidence)[:1000]].mean())
    assert tenth["precision"] > points[-1]["precision"]


def test_rows_of_one_confidence_are_answered_together() -> None:
    points = metrics.report([0, 1, 0, 1], probabilities=[[0.7, 0.3, 0.0]] * 4)["coverage"]
    assert points == [{"confidence": pytest.approx(0.7), "share": 1.0, "precision": 0.5}]


def test_languages_with_enough_rows_have_figures_of_their_own() -> None:
    labels = [0] * 60 + [1] * 20 + [2] * 9
    probabilities = [[0.8, 0.1, 0.1]] * 70 + [[0.1, 0.8, 0.1]] * 19
    languages = ["en"] * 60 + [""] * 20 + ["pt"] * 9
    found = metrics.report(labels, probabilities=probabilities, languages=languages)["by_language"]
    assert list(found) == ["en", ""], "most frequent first, without the nine"
    assert found["en"]["accuracy"] == 1.0
    assert found["en"]["calibration_error"] == pytest.approx(0.2, abs=1e-6)
    assert found[""] == {"n": 20, "accuracy": 0.5, "macro_f1": pytest.approx(1 / 3)}


def test_no_language_is_no_table() -> None:
    assert "by_language" not in metrics.report([0, 1], [0, 1], languages=["", ""])


def test_costs_are_those_of_true_and_chosen_class() -> None:
    costs = [[0, 1, 2], [1, 0, 1], [9, 4, 0]]
    figures = metrics.report([2, 2, 0, 1], [0, 2, 0, 0], costs=costs)
    assert figures["mean_cost"] == pytest.approx((9 + 0 + 0 + 1) / 4)
    low, high = figures["intervals"]["mean_cost"]
    assert low < figures["mean_cost"] < high
    with pytest.raises(ValueError, match="3 rows of 3"):
        metrics.report([0], [0], costs=[[0, 1], [1, 0]])


def test_counts_give_what_their_rows_give() -> None:
    labels, chosen = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    figures = metrics.report(labels, chosen)
    assert metrics.report_counts(figures["confusion_matrix"]) == figures


class TestDifference:
    def test_the_same_answers_differ_by_nothing(self) -> None:
        labels = np.array([0, 1, 2, 0, 1, 2])
        difference = metrics.compare(labels, labels, labels, "macro_f1")
        assert difference.value == 0
        assert difference.interval == (0, 0)
        assert difference.share_worse == 0

    def test_pairing_finds_a_small_difference_that_two_intervals_hide(
        self, answers: tuple[Any, Any]
    ) -> None:
        """One set of answers is the other, with a few of its mistakes mended."""
        labels = answers[0][:1000]
        worse = answers[1][:1000].argmax(axis=1)
        better = worse.copy()
        better[np.flatnonzero(worse != labels)[:12]] = labels[np.flatnonzero(worse != labels)[:12]]
        difference = metrics.compare(labels, better, worse, "accuracy")
        assert difference.value == pytest.approx(0.012)
        assert difference.interval[0] > 0
        assert difference.share_worse < 0.01
        low = metrics.report(labels, better)["intervals"]["accuracy"][0]
        high = metrics.report(labels, worse)["intervals"]["accuracy"][1]
        assert low < high

    def test_groups_are_drawn_whole(self) -> None:
        """A gain on one text with a hundred copies is a gain on one text."""
        labels = np.array([0] * 100 + [1] * 50)
        better, worse = labels.copy(), labels.copy()
        worse[:100], better[100:110] = 1, 0
        groups = ["copies"] * 100 + [""] * 50
        alone = metrics.compare(labels, better, worse, "accuracy")
        together = metrics.compare(labels, better, worse, "accuracy", groups=groups)
        assert alone.value == together.value > 0
        assert alone.share_worse == 0
        assert together.share_worse > 0.2


@pytest.mark.parametrize("metric", GATE_METRICS)
def test_the_gate_knows_its_metrics(metric: str) -> None:
    labels = np.array([0, 1, 2, 2])
    difference = metrics.compare(labels, labels, np.zeros_like(labels), metric)
    assert difference.value > 0


def test_figures_need_numpy_alone() -> None:
    code = """
import sys
for name in ("sklearn", "scipy", "django", "torch"):
    sys.modules[name] = None
from ticket_priority.ml.evaluation import metrics, scoring
print(metrics.report([0, 1], [0, 0])["accuracy"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0.5", done.stderr


def test_where_numpy_is_missing_the_extra_is_named() -> None:
    code = 'import sys; sys.modules["numpy"] = None; import ticket_priority.ml.evaluation.metrics'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "django-ticket-priority[serving]" in done.stderr


def _width(interval: list[float]) -> float:
    return interval[1] - interval[0]
