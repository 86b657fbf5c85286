"""What a model version's metrics (metrics.json) hold, with types. Standard library only.

The metrics of a model from elsewhere may hold anything: what is missing or odd becomes None or is
left out, and nothing here raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from ticket_priority.ml.numbers import is_number
from ticket_priority.ml.types import CLASS_NAMES

FIGURES: Final = ("accuracy", "macro_f1", "weighted_kappa", "calibration_error")
"""The figures of a whole test, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the ends of its 95% interval, which are both known or both None."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """How a model does on one class; `support` is how many test tickets are of it."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int | None


@dataclass(frozen=True, slots=True)
class LanguageFigures:
    """How a model does on the test tickets of one language, "" where it is not known."""

    language: str
    rows: int | None
    accuracy: float | None
    macro_f1: float | None
    calibration_error: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """How a model or a baseline does on a test of `rows` tickets.

    `estimates` are in the order of `FIGURES`, `classes` by class name. `confusion_matrix` is [] if
    it is no square of counts, `is_known` False if nothing was stored.
    """

    is_known: bool
    rows: int | None
    estimates: tuple[Estimate, ...]
    classes: Mapping[str, ClassFigures]
    languages: tuple[LanguageFigures, ...]
    confusion_matrix: list[list[int]]

    @classmethod
    def read(cls, value: Any) -> Self:
        """Read what `metrics.report` returned."""
        report = mapping(value)
        intervals, per_class = mapping(report.get("intervals")), mapping(report.get("per_class"))
        class_intervals = mapping(intervals.get("per_class"))
        return cls(
            is_known=bool(report),
            rows=count(report.get("n")),
            estimates=tuple(_estimate(report, intervals, name) for name in FIGURES),
            classes={
                name: _class_figures(figures, mapping(class_intervals.get(name)))
                for name in CLASS_NAMES
                if (figures := mapping(per_class.get(name)))
            },
            languages=tuple(
                LanguageFigures(
                    str(language),
                    count(mapping(figures).get("n")),
                    *_numbers(mapping(figures), "accuracy", "macro_f1", "calibration_error"),
                )
                for language, figures in mapping(report.get("by_language")).items()
            ),
            confusion_matrix=_matrix(report.get("confusion_matrix")),
        )

    @property
    def is_complete(self) -> bool:
        """Whether accuracy and macro-F1 are known, without which there is little to show."""
        return None not in (self.figure("accuracy"), self.figure("macro_f1"))

    def estimate(self, name: str) -> Estimate:
        """Return one of `FIGURES` with its interval."""
        return self.estimates[FIGURES.index(name)]

    def figure(self, name: str) -> float | None:
        """Return one of `FIGURES`."""
        return self.estimate(name).value

    def is_same_test(self, other: Report) -> bool:
        """Say whether both are of one test, going by the number of tickets of each class."""
        return self._supports() == other._supports()

    def _supports(self) -> dict[str, int]:
        supports = {name: figures.support for name, figures in self.classes.items()}
        return {name: support for name, support in supports.items() if support is not None}


@dataclass(frozen=True, slots=True)
class Moves:
    """How far answers move where tickets are rewritten: shares of tickets, and classes."""

    kept: float | None
    raised: float | None
    shift: float | None


@dataclass(frozen=True, slots=True)
class Export:
    """How an exported form of a transformer does, and whether it is the one that is served."""

    name: str
    is_served: bool
    accuracy: float | None
    macro_f1: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served: in which precision, why, and how large. `is_known`: whether it says so."""

    is_known: bool
    precision: str
    reason: str
    size_mb: float | None
    exports: tuple[Export, ...]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of a model version.

    `model` is the model as trained, `served` as served here, which may be on another test, with
    the `served_majority` on that. `moves` are by the name of the rewriting, of `rewritten_rows`
    tickets; `overall_moves` of all rewritings. `training` is as it was stored.
    """

    served: Report
    served_majority: Report
    model: Report
    transformer: Report
    tfidf_logreg: Report
    majority: Report
    moves: Mapping[str, Moves]
    overall_moves: Moves | None
    rewritten_rows: int | None
    serving: Serving
    training: Mapping[str, Any]

    @classmethod
    def read(cls, metrics: Any) -> Self:
        """Read `TrainingResult.metrics`, `ModelVersion.metrics` or what stands in their place."""
        stored = mapping(metrics)
        robustness = mapping(stored.get("robustness"))
        overall = mapping(robustness.get("overall"))
        return cls(
            served=Report.read(stored.get("served")),
            served_majority=Report.read(mapping(stored.get("served")).get("majority")),
            model=Report.read(stored.get("model")),
            transformer=Report.read(stored.get("transformer")),
            tfidf_logreg=Report.read(stored.get("tfidf_logreg")),
            majority=Report.read(stored.get("majority")),
            moves={
                str(name): _moves(moves)
                for name, found in mapping(robustness.get("by_perturbation")).items()
                if (moves := mapping(found))
            },
            overall_moves=_moves(overall) if overall else None,
            rewritten_rows=count(robustness.get("n")),
            serving=_serving(mapping(stored.get("serving"))),
            training=mapping(stored.get("training")),
        )

    @property
    def own(self) -> Report:
        """The model as it is served, else as it was trained."""
        return self.served if self.served.is_known else self.model

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """The configuration that it was trained with."""
        return mapping(self.training.get("hyperparameters"))


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a value that is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """Return a value that is a finite number."""
    try:
        return float(value) if is_number(value) and math.isfinite(value) else None
    except OverflowError:
        return None


def count(value: Any) -> int | None:
    """Return a value that is a finite number as a whole one."""
    found = number(value)
    return None if found is None else int(found)


def _estimate(figures: Mapping[str, Any], intervals: Mapping[str, Any], name: str) -> Estimate:
    value, ends = number(figures.get(name)), intervals.get(name)
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return Estimate(value)
    low, high = map(number, ends)
    return Estimate(value) if low is None or high is None else Estimate(value, low, high)


def _class_figures(figures: Mapping[str, Any], intervals: Mapping[str, Any]) -> ClassFigures:
    precision, recall, f1 = (
        _estimate(figures, intervals, name) for name in ("precision", "recall", "f1")
    )
    return ClassFigures(precision, recall, f1, count(figures.get("support")))


def _matrix(value: Any) -> list[list[int]]:
    rows = value if isinstance(value, list) and len(value) == len(CLASS_NAMES) else []
    if not all(isinstance(row, list) and len(row) == len(CLASS_NAMES) for row in rows):
        return []
    return [[count(cell) or 0 for cell in row] for row in rows]


def _numbers(figures: Mapping[str, Any], *names: str) -> Iterator[float | None]:
    return (number(figures.get(name)) for name in names)


def _moves(figures: Mapping[str, Any]) -> Moves:
    return Moves(*_numbers(figures, "kept", "raised", "shift"))


def _serving(figures: Mapping[str, Any]) -> Serving:
    precision = str(figures.get("precision") or "")
    reason, size = str(figures.get("reason") or ""), number(figures.get("size_mb"))
    exports = tuple(
        Export(name, name == precision, *_numbers(found, "accuracy", "macro_f1", "agreement"))
        for name in ("fp32", "int8")
        if (found := mapping(figures.get(name)))
    )
    return Serving(bool(figures), precision, reason, size, exports)
