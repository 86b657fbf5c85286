"""A model version's figures, arranged to be read. What is missing or odd is left blank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from ticket_priority.interfaces import CLASS_NAMES
from ticket_priority.models import ModelVersion
from ticket_priority.priorities import Priority

RIVALS: Final = (
    ("model", _("This model")),
    ("tfidf_logreg", _("TF-IDF + logistic regression")),
    ("majority", _("Most frequent class")),
)
_SHADES: Final = 10


@dataclass(frozen=True, slots=True)
class Score:
    """A model or a baseline on the test split; a figure is None where it is not known."""

    label: Any
    is_model: bool
    accuracy: float | None
    macro_f1: float | None
    weighted_kappa: float | None
    calibration_error: float | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class ClassScore:
    label: Any
    is_model: bool
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A count of the confusion matrix; `shade` is its share of the row, 0 to 10."""

    count: int
    share: float
    is_right: bool

    @property
    def shade(self) -> int:
        return round(self.share * _SHADES)


@dataclass(frozen=True, slots=True)
class Export:
    """How an exported form of the model does."""

    label: str
    is_served: bool
    accuracy: float | None
    macro_f1: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything the page of a model version shows beyond its columns."""

    version: ModelVersion

    def figure(self, rival: str, name: str) -> float | None:
        return _number(self._of(rival).get(name))

    @property
    def scores(self) -> list[Score]:
        """One line for the model and each baseline that was run."""
        return [
            Score(
                label=label,
                is_model=key == "model",
                accuracy=self.figure(key, "accuracy"),
                macro_f1=self.figure(key, "macro_f1"),
                weighted_kappa=self.figure(key, "weighted_kappa"),
                calibration_error=self.figure(key, "calibration_error"),
                rows=_count(self._of(key).get("n")),
            )
            for key, label in RIVALS
            if self._of(key)
        ]

    @property
    def classes(self) -> list[tuple[Priority, int | None, list[ClassScore]]]:
        """The gravest class first: its rows in the test split, and how each did on it."""
        found = []
        for priority in reversed(Priority):
            lines = []
            support = None
            for key, label in RIVALS:
                line = _mapping(_mapping(self._of(key).get("per_class")).get(priority.slug))
                if not line:
                    continue
                support = _count(line.get("support")) if support is None else support
                values = (_number(line.get(name)) for name in ("precision", "recall", "f1"))
                lines.append(ClassScore(label, key == "model", *values))
            if lines:
                found.append((priority, support, lines))
        return found

    @property
    def confusion(self) -> list[tuple[Priority, list[Cell], int]]:
        """Rows by true class, cells by predicted class, and the row's sum; [] if not square."""
        return table_of(self._of("model").get("confusion_matrix"))

    @property
    def serving(self) -> Mapping[str, Any]:
        return self._of("serving")

    @property
    def exports(self) -> list[Export]:
        """The exported forms that were judged against the trained model."""
        return [
            Export(
                label=name,
                is_served=self.serving.get("precision") == name,
                accuracy=_number(line.get("accuracy")),
                macro_f1=_number(line.get("macro_f1")),
                agreement=_number(line.get("agreement")),
            )
            for name in ("fp32", "int8")
            if (line := _mapping(self.serving.get(name)))
        ]

    @property
    def splits(self) -> list[tuple[Any, int | None, list[int | None]]]:
        """Rows of each split, in all and by class."""
        dataset = _mapping(self.version.dataset)
        rows, classes = _mapping(dataset.get("rows")), _mapping(dataset.get("classes"))
        names = (("train", _("training")), ("validation", _("validation")), ("test", _("test")))
        return [
            (
                label,
                _count(rows.get(name)),
                [_count(_mapping(classes.get(name)).get(slug, 0)) for slug in CLASS_NAMES],
            )
            for name, label in names
            if name in rows
        ]

    @property
    def rows(self) -> int | None:
        """Labelled tickets in all splits together."""
        counts = [count for _label, count, _classes in self.splits if count is not None]
        return sum(counts) if counts else None

    @property
    def dropped(self) -> list[tuple[str, int]]:
        """Rows left out, by reason."""
        reasons = _mapping(_mapping(self.version.dataset).get("dropped"))
        counted = ((str(reason), _count(count)) for reason, count in reasons.items())
        return [(reason, count) for reason, count in counted if count]

    @property
    def run(self) -> list[tuple[Any, Any]]:
        """How the training went."""
        training = self._of("training")
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
        given = _mapping(self.version.config) or _mapping(
            self._of("training").get("hyperparameters")
        )
        return [(str(name), value) for name, value in given.items() if value is not None]

    def _of(self, key: str) -> Mapping[str, Any]:
        return _mapping(_mapping(self.version.metrics).get(key))


def table_of(matrix: Any) -> list[tuple[Priority, list[Cell], int]]:
    """Arrange counts by class (rows) and class (columns); [] if that is not what they are."""
    size = len(CLASS_NAMES)
    if not isinstance(matrix, list) or len(matrix) != size:
        return []
    rows = []
    for true, counts in zip(Priority, matrix, strict=True):
        if not isinstance(counts, list) or len(counts) != size:
            return []
        numbers = [_count(count) or 0 for count in counts]
        total = sum(numbers)
        cells = [
            Cell(number, number / total if total else 0.0, predicted == true)
            for predicted, number in zip(Priority, numbers, strict=True)
        ]
        rows.append((true, cells, total))
    return rows


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
