from __future__ import annotations

from typing import Any

import pytest

from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.evaluation.figures import Estimate, Metrics, Report

ODD: list[Any] = [
    None,
    "x",
    [],
    [1, 2],
    True,
    {},
    {"a": 1},
    {"": {"accuracy": "x"}},
    {"low": 3, "by_language": {"en": []}},
    10**400,
    float("inf"),
    float("nan"),
]
LABELS = [0, 1, 2, 0, 1, 2] * 12


def test_what_was_reported_is_read() -> None:
    stored = metrics.report(
        LABELS,
        probabilities=[[0.8, 0.1, 0.1]] * 36 + [[0.1, 0.1, 0.8]] * 36,
        languages=["en"] * 60 + [""] * 12,
    )
    report = Report.read(stored)
    assert report.is_known and report.is_complete
    assert report.rows == 72
    assert report.estimate("macro_f1") == Estimate(
        stored["macro_f1"], *stored["intervals"]["macro_f1"]
    )
    assert report.estimate("calibration_error") == Estimate(stored["calibration_error"])
    assert report.classes["high"].support == 24
    assert report.classes["low"].recall.value == stored["per_class"]["low"]["recall"]
    assert report.classes["low"].recall.low == stored["intervals"]["per_class"]["low"]["recall"][0]
    assert report.confusion_matrix == stored["confusion_matrix"]
    assert [(one.language, one.rows) for one in report.languages] == [("en", 60), ("", 12)]
    assert report.languages[1].calibration_error is None


def test_served_figures_come_before_trained_ones() -> None:
    served, trained = metrics.report([0, 1], [0, 1]), metrics.report([0, 1], [1, 1])
    assert Metrics.read({"served": served, "model": trained}).own.figure("accuracy") == 1.0
    assert Metrics.read({"served": {}, "model": trained}).own.figure("accuracy") == 0.5


def test_one_test_is_told_from_another() -> None:
    report = Report.read(metrics.report(LABELS, LABELS))
    assert report.is_same_test(Report.read(metrics.report(LABELS, [0] * 72)))
    assert not report.is_same_test(Report.read(metrics.report([0, 1, 2], [0, 1, 2])))


def test_what_is_served_is_read() -> None:
    serving = Metrics.read(
        {"serving": {"precision": "int8", "size_mb": 7, "fp32": {"agreement": 1}, "int8": 3}}
    ).serving
    assert (serving.precision, serving.size_mb, serving.reason) == ("int8", 7.0, "")
    assert [(one.name, one.is_served, one.agreement) for one in serving.exports] == [
        ("fp32", False, 1.0)
    ]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize(
    "stored",
    [
        lambda odd: odd,
        lambda odd: dict.fromkeys(("served", "model", "robustness", "serving", "training"), odd),
        lambda odd: {
            "model": dict.fromkeys(
                ("n", "accuracy", "intervals", "per_class", "by_language", "confusion_matrix"), odd
            )
        },
        lambda odd: {
            "model": {
                "intervals": {"accuracy": odd, "macro_f1": [odd, odd], "per_class": {"low": odd}},
                "per_class": {"low": odd, "high": {"recall": odd, "support": odd}},
                "by_language": {"en": odd, "de": {"n": odd, "accuracy": odd}},
                "confusion_matrix": [[odd] * 3] * 3,
            },
            "robustness": {"n": odd, "overall": odd, "by_perturbation": {"x": {"kept": odd}}},
            "serving": {"precision": odd, "size_mb": odd, "fp32": odd, "int8": {"accuracy": odd}},
            "training": {"hyperparameters": odd},
        },
    ],
)
def test_odd_values_are_no_figures(stored: Any, odd: Any) -> None:
    found = Metrics.read(stored(odd))
    assert found.own.figure("accuracy") is None
    assert found.own.estimate("macro_f1").low is None
    assert not found.own.is_complete
    assert all(isinstance(cell, int) for row in found.model.confusion_matrix for cell in row)
