"""A model version's figures, arranged to be read. What is missing or odd is left blank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from ticket_priority.ml.evaluation.report import is_same_test
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
    ("accuracy", _("Accuracy")),
    ("macro_f1", _("Macro F1")),
    ("weighted_kappa", _("Weighted kappa")),
    ("calibration_error", _("Calibration error")),
)
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
_SHADES: Final = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the ends of its 95% interval; None for what is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A model or a baseline on a test; `estimates` are in the order of `MEASURED`."""

    label: Any
    is_model: bool
    estimates: tuple[Estimate, ...]
    rows: int | None


@dataclass(frozen=True, slots=True)
class LanguageScore:
    """How the model does on the test tickets of one language, "" where it is not known."""

    language: str
    rows: int | None
    accuracy: float | None
    macro_f1: float | None
    calibration_error: float | None


@dataclass(frozen=True, slots=True)
class Moves:
    """How far answers move where tickets are rewritten: shares of tickets, and classes."""

    label: Any
    kept: float | None
    raised: float | None
    shift: float | None


@dataclass(frozen=True, slots=True)
class ClassScore:
    label: Any
    is_model: bool
    precision: Estimate
    recall: Estimate
    f1: Estimate


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

    def own_figure(self, name: str) -> float | None:
        """Return a figure of the model as it is served, else as it was trained."""
        return self.figure(self._own, name)

    @property
    def scores(self) -> list[Score]:
        """One line for the model and each baseline that was run."""
        scores = [_score(label, key in _OWN, self._of(key)) for key, label in RIVALS]
        if not self._is_one_test:
            majority = _mapping(self._of("served").get("majority"))
            scores.insert(1, _score(_("Most frequent class, same tickets"), False, majority))
        return [score for score in scores if score is not None]

    @property
    def languages(self) -> list[LanguageScore]:
        """How the model does in each language, the most frequent first."""
        languages = _mapping(self._of(self._own).get("by_language"))
        return [
            LanguageScore(
                language=str(language),
                rows=_count(_mapping(figures).get("n")),
                accuracy=_number(_mapping(figures).get("accuracy")),
                macro_f1=_number(_mapping(figures).get("macro_f1")),
                calibration_error=_number(_mapping(figures).get("calibration_error")),
            )
            for language, figures in languages.items()
        ]

    @property
    def classes(self) -> list[tuple[Priority, int | None, list[ClassScore]]]:
        """The gravest class first: its rows in the test split, and how each did on it."""
        found = []
        for priority in reversed(Priority):
            lines = []
            support = None
            for key, label in RIVALS:
                figures = self._of(key)
                line = _mapping(_mapping(figures.get("per_class")).get(priority.slug))
                if not line:
                    continue
                support = _count(line.get("support")) if support is None else support
                ends = _mapping(
                    _mapping(_mapping(figures.get("intervals")).get("per_class")).get(priority.slug)
                )
                values = (_estimate(line, ends, name) for name in ("precision", "recall", "f1"))
                lines.append(ClassScore(label, key in _OWN, *values))
            if lines:
                found.append((priority, support, lines))
        return found

    @property
    def confusion(self) -> list[tuple[Priority, list[Cell], int]]:
        """Rows by true class, cells by predicted class, and the row's sum; [] if not square."""
        return table_of(self._of(self._own).get("confusion_matrix"))

    @property
    def rewritten(self) -> list[Moves]:
        """One line for each manner of rewriting that was measured, and one for all."""
        figures = self._of("robustness")
        measured = {**_mapping(figures.get("by_perturbation")), "overall": figures.get("overall")}
        return [
            Moves(label, *(_number(line.get(key)) for key in ("kept", "raised", "shift")))
            for name, label in REWRITTEN
            if (line := _mapping(measured.get(name)))
        ]

    @property
    def rewritten_rows(self) -> int | None:
        return _count(self._of("robustness").get("n"))

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

    @property
    def _own(self) -> str:
        return "served" if self._of("served") else "model"

    @property
    def _is_one_test(self) -> bool:
        """Whether the model was served the test that it was trained with: not after an import."""
        served, trained = self._of("served"), self._of("model")
        return not served or not trained or is_same_test(served, trained)

    def _of(self, key: str) -> Mapping[str, Any]:
        return _mapping(_mapping(self.version.metrics).get(key))


def _score(label: Any, is_model: bool, figures: Mapping[str, Any]) -> Score | None:
    if not figures:
        return None
    ends = _mapping(figures.get("intervals"))
    estimates = tuple(_estimate(figures, ends, name) for name, _label in MEASURED)
    return Score(label, is_model, estimates, _count(figures.get("n")))


def _estimate(figures: Mapping[str, Any], intervals: Mapping[str, Any], name: str) -> Estimate:
    ends = intervals.get(name)
    low, high = ends if isinstance(ends, list) and len(ends) == 2 else (None, None)
    return Estimate(_number(figures.get(name)), _number(low), _number(high))


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
