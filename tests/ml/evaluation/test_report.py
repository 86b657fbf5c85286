from __future__ import annotations

from typing import Any

import pytest

from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.evaluation.report import lines

LABELS = [0, 1, 2, 0, 1, 2] * 12
SERVED = metrics.report(
    LABELS,
    probabilities=[[0.8, 0.1, 0.1]] * 36 + [[0.1, 0.1, 0.8]] * 36,
    languages=["en"] * 60 + [""] * 12,
)
TRAINED = metrics.report(LABELS, [0] * 40 + [2] * 32)
MAJORITY = metrics.report(LABELS, [0] * 72)


def printed(**figures: Any) -> str:
    return "\n".join(lines(figures))


def test_figures_stand_with_their_intervals_beside_the_baselines() -> None:
    said = printed(model=SERVED, majority=MAJORITY)
    low, high = SERVED["intervals"]["macro_f1"]
    assert f"{SERVED['macro_f1']:.3f} [{low:.3f}, {high:.3f}]" in said
    low, high = MAJORITY["intervals"]["accuracy"]
    assert f"0.333 [{low:.3f}, {high:.3f}]" in said
    (kappa,) = [line for line in said.splitlines() if line.startswith("weighted kappa")]
    assert kappa.count("[") == 2
    (error,) = [line for line in said.splitlines() if line.startswith("calibration error")]
    assert error.split()[-2:] == [f"{SERVED['calibration_error']:.3f}", "-"]


def test_each_language_has_a_line() -> None:
    rows = [line.split() for line in printed(model=SERVED).splitlines()]
    (english,) = [row for row in rows if row and row[0] == "en"]
    assert english[1] == "60"
    assert english[-1] == f"{SERVED['by_language']['en']['calibration_error']:.3f}"
    (unknown,) = [row for row in rows if row and row[0] == "unknown"]
    assert unknown[-1] == "-", "twelve tickets say nothing of calibration"


def test_what_is_served_is_shown_and_what_the_export_changed_is_said() -> None:
    said = printed(served=SERVED, model=TRAINED, majority=MAJORITY)
    assert f"{SERVED['accuracy']:.3f} [" in said
    assert f"Before it was exported: accuracy {TRAINED['accuracy']:.3f}" in said
    assert "Before it was exported" not in printed(served=SERVED, model=SERVED)


def test_two_tests_are_two_tables() -> None:
    here = {**metrics.report([0, 1, 2], [0, 1, 1]), "majority": metrics.report([0, 1, 2], [0] * 3)}
    said = printed(served=here, model=TRAINED, majority=MAJORITY)
    first, second = said.split("its own test split")
    assert "the labelled tickets here" in first
    assert "0.667 [" in first
    assert "majority" in first
    assert f"{TRAINED['accuracy']:.3f} [" in second


def test_how_far_rewriting_moves_the_answers_comes_last() -> None:
    still = {"kept": 0.95, "raised": 0.04, "shift": 0.1}
    moved = {"n": 84, "overall": still, "by_perturbation": {"urgent_first": still, "odd": 3}}
    rows = printed(served=SERVED, robustness=moved).splitlines()
    assert [row.split() for row in rows if row.startswith(("urgent first", "all together"))] == [
        ["urgent", "first", "95.0%", "4.0%", "0.100"],
        ["all", "together", "95.0%", "4.0%", "0.100"],
    ]
    assert "84 test tickets" in rows[-1]
    assert not any(row.startswith("odd") for row in rows)


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"robustness": 3},
        {"robustness": {"n": 3, "overall": {"kept": "x"}, "by_perturbation": 4}},
        {"model": {}, "served": None},
        {"model": 3, "majority": "x"},
        {"model": {"accuracy": 0.5}, "served": {"by_language": {"en": 1}}},
    ],
)
def test_without_figures_nothing_is_printed(figures: Any) -> None:
    assert printed(**figures) == ""


def test_odd_figures_are_left_out() -> None:
    said = printed(
        model={
            "accuracy": 0.5,
            "macro_f1": 0.4,
            "intervals": {"accuracy": [0.1], "macro_f1": "x"},
            "by_language": {"en": 3, "de": {"accuracy": 1, "macro_f1": 1}},
            "per_class": [],
        }
    )
    assert "0.500\n" in said
    assert "language" not in said


def test_a_baseline_that_does_better_is_named() -> None:
    assert "does better than this model" in printed(model=MAJORITY, tfidf_logreg=SERVED)
    assert "does better" not in printed(model=SERVED, tfidf_logreg=MAJORITY)
