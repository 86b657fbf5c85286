"""A model version's figures, arranged to be read. What is missing or odd is left blank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from ticket_priority.ml.evaluation.figures import (
    ClassFigures,
    Estimate,
    Metrics,
    Moves,
    Report,
    count,
    mapping,
)
from ticket_priority.ml.types import CLASS_NAMES
from ticket_priority.models import ModelVersion
from ticket_priority.priorities import Priority

RIVALS: Final = (
    ("served", _("This model, as served")),
    ("model", _("This model, as trained")),
    ("tfidf_logreg", _("TF-IDF + logistic regression")),
    ("majority", _("Most frequent class")),
)
MEASURED: Final = (
    _("Accuracy"),
    _("Macro F1"),
    _("Weighted kappa"),
    _("Calibration error"),
)
"""The titles of `FIGURES`."""
REWRITTEN: Final = (
    ("shouting", _("Capital letters only")),
    ("exclamation_marks", _("!!! after each sentence")),
    ("urgent_first", _("“URGENT!!!” before it")),
    ("urgent_last", _("“very urgent!!!” after it")),
    ("keywords", _("Words of outages pasted")),
    ("plea", _("A plea for priority")),
    ("greeting", _("Greeting and signature")),
    ("whitespace", _("Blanks and line breaks")),
    ("html", _("Written in HTML")),
    ("typos", _("Typing mistakes")),
    ("overall", _("All together")),
)
_OWN: Final = ("served", "model")


@dataclass(frozen=True, slots=True)
class Score:
    """A model or a baseline on a test; `estimates` are in the order of `MEASURED`."""

    label: Any
    is_model: bool
    estimates: tuple[Estimate, ...]
    rows: int | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A count of the confusion matrix; `shade` is its share of the row, 0 to 10."""

    count: int
    share: float
    is_right: bool

    @property
    def shade(self) -> int:
        return round(10 * self.share)


@dataclass(frozen=True)
class Figures:
    """Everything the page of a model version shows beyond its columns."""

    version: ModelVersion

    @cached_property
    def metrics(self) -> Metrics:
        return Metrics.read(self.version.metrics)

    def figure(self, rival: str, name: str) -> float | None:
        """Return a figure of one of `RIVALS`."""
        return self._report(rival).figure(name)

    @property
    def scores(self) -> list[Score]:
        """One line for the model and each baseline that was run."""
        served, trained = self.metrics.served, self.metrics.model
        majority = self.metrics.served_majority
        scores = [
            Score(label, key in _OWN, report.estimates, report.rows)
            for key, label in RIVALS
            if (report := self._report(key)).is_known
        ]
        is_one_test = not trained.is_known or served.is_same_test(trained)
        if served.is_known and majority.is_known and not is_one_test:
            label = _("Most frequent class, same tickets")
            scores.insert(1, Score(label, False, majority.estimates, majority.rows))
        return scores

    @property
    def classes(self) -> list[tuple[Priority, int | None, list[tuple[Any, bool, ClassFigures]]]]:
        """The highest priority first: its rows in the test split, and how each did on it."""
        found = []
        for priority in reversed(Priority):
            lines = [
                (label, key in _OWN, figures)
                for key, label in RIVALS
                if (figures := self._report(key).classes.get(priority.slug))
            ]
            supports = (line.support for *_names, line in lines if line.support is not None)
            if lines:
                found.append((priority, next(supports, None), lines))
        return found

    @property
    def confusion(self) -> list[tuple[Priority, list[Cell], int]]:
        """Rows by true class, cells by predicted class, and the row's sum; [] if not square."""
        return table_of(self.metrics.own.confusion_matrix)

    @property
    def rewritten(self) -> list[tuple[Any, Moves]]:
        """One line for each manner of rewriting that was measured, and one for all."""
        measured = {**self.metrics.moves, "overall": self.metrics.overall_moves}
        return [(label, moves) for name, label in REWRITTEN if (moves := measured.get(name))]

    @property
    def splits(self) -> list[tuple[Any, int | None, list[int | None]]]:
        """Rows of each split, in all and by class."""
        dataset = mapping(self.version.dataset)
        rows, classes = mapping(dataset.get("rows")), mapping(dataset.get("classes"))
        names = (("train", _("training")), ("validation", _("validation")), ("test", _("test")))
        return [
            (
                label,
                count(rows.get(name)),
                [count(mapping(classes.get(name)).get(slug, 0)) for slug in CLASS_NAMES],
            )
            for name, label in names
            if name in rows
        ]

    @property
    def rows(self) -> int | None:
        """Labelled tickets in all splits together."""
        counts = [number for _label, number, _classes in self.splits if number is not None]
        return sum(counts) if counts else None

    @property
    def dropped(self) -> list[tuple[str, int]]:
        """Rows left out, by reason."""
        reasons = mapping(mapping(self.version.dataset).get("dropped"))
        return [(str(reason), number) for reason in reasons if (number := count(reasons[reason]))]

    @property
    def run(self) -> list[tuple[Any, Any]]:
        """How the training went."""
        training = self.metrics.training
        names = (
            ("epochs", _("Epochs")),
            ("best_epoch", _("Best epoch")),
            ("monitor", _("Chosen by")),
            ("seconds", _("Seconds")),
            ("precision", _("Precision")),
        )
        return [(label, training[name]) for name, label in names if name in training]

    @property
    def configuration(self) -> list[tuple[str, Any]]:
        given = mapping(self.version.config) or self.metrics.hyperparameters
        return [(str(name), value) for name, value in given.items() if value is not None]

    def _report(self, rival: str) -> Report:
        report: Report = getattr(self.metrics, rival)
        return report


def table_of(matrix: Sequence[Sequence[int]]) -> list[tuple[Priority, list[Cell], int]]:
    """Arrange counts by class (rows) and class (columns); [] stays []."""
    return [
        (
            true,
            [
                Cell(number, number / max(sum(numbers), 1), predicted == true)
                for predicted, number in zip(Priority, numbers, strict=True)
            ],
            sum(numbers),
        )
        for true, numbers in zip(Priority, matrix, strict=False)
    ]
