"""The figures of a set of answers, with their intervals, ready for JSON. Needs numpy.

Every figure comes from confusion matrices, [..., true class, chosen class], so that one function
computes it for a test and for a thousand resamples at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

try:
    import numpy as np
    import numpy.typing as npt
except ImportError as error:
    raise ImportError(
        "Figures need numpy. Install what serving needs with: "
        'pip install "django-ticket-priority[serving]"'
    ) from error

from ticket_priority.ml.types import CLASS_NAMES, LabelledText

RESAMPLES: Final = 1000
MIN_LANGUAGE_ROWS: Final = 10
"""A language with fewer rows than this is left out: its figures would be noise."""

MIN_CALIBRATION_ROWS: Final = 50
"""A language with fewer rows than this gets no calibration error."""

_CLASSES: Final = len(CLASS_NAMES)
_BINS: Final = 15
_COVERAGE_POINTS: Final = 20
_SEED: Final = 20
_PLACES: Final = 12

Labels = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def report(
    labels: Sequence[int] | Labels,
    predicted: Sequence[int] | Labels | None = None,
    *,
    probabilities: npt.ArrayLike | None = None,
    groups: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    costs: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Compare predictions with the true class ids.

    Give `predicted` class ids [n], or `probabilities` [n, classes], from which the most probable
    class is taken (on a tie the higher priority), or both. With probabilities come the expected
    calibration error (15 bins) and `coverage`: for up to 20 values of `confidence`, the `share` of
    rows whose chosen class is given at least that probability, and the `precision` there.

    Every figure is defined whatever classes occur: macro-F1 averages over the classes that are
    true or predicted at least once, a precision or recall without a case is 0, and so is a kappa
    that chance alone explains. `confusion_matrix` has a row for each true class and a column for
    each predicted one. `intervals` are 95% bootstrap intervals that resample `groups`
    of rows [n], such as near-copies; a row whose group is "" is a group of its own. With
    `languages` [n] there is `by_language`, for languages with at least 10 rows; with `costs`
    [true, chosen] the `mean_cost` of a row. Raises ValueError without a single row.
    """
    truth = np.asarray(labels, dtype=np.int64)
    if len(truth) == 0:
        raise ValueError("metrics need at least one labelled row")
    scores = None if probabilities is None else np.asarray(probabilities, dtype=np.float32)
    if predicted is None:
        if scores is None:
            raise ValueError("give predicted class ids or probabilities")
        predicted = most_probable(scores)
    chosen = np.asarray(predicted, dtype=np.int64)
    named = _named_figures(costs)
    figures: dict[str, Any] = {"n": len(truth)}
    if scores is not None:
        figures["calibration_error"] = _calibration_error(truth, scores)
    figures |= _point_figures(confusion_matrix(truth, chosen), named)
    cells = truth * _CLASSES + chosen
    units = _units(groups, len(truth))
    samples = _resample(cells, units, _CLASSES**2).reshape(-1, _CLASSES, _CLASSES)
    figures["intervals"] = _intervals(samples, named, units=int(units.max()) + 1)
    if scores is not None:
        figures["coverage"] = _coverage(truth, chosen, scores)
    if languages is not None and any(languages):
        figures["by_language"] = _by_language(truth, chosen, scores, languages)
    return figures


def report_on(
    rows: Iterable[LabelledText],
    predicted: Sequence[int] | None = None,
    *,
    probabilities: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Do as `report`, with the labels, groups and languages of the rows."""
    labels, groups, languages = [], [], []
    # Rows may be read from disk, so each is taken once.
    for row in rows:
        labels.append(row.label)
        groups.append(row.group)
        languages.append(row.language)
    return report(
        labels, predicted, probabilities=probabilities, groups=groups, languages=languages
    )


def report_counts(confusion_matrix: npt.ArrayLike) -> dict[str, Any]:
    """Do as `report` with counts of rows by true and predicted class [classes, classes].

    Each row is a group of its own. Raises ValueError without a single one.
    """
    table = np.asarray(confusion_matrix, dtype=np.int64)
    cells = np.repeat(np.arange(table.size), table.ravel())
    return report(cells // _CLASSES, cells % _CLASSES)


def confusion_matrix(truth: Labels, chosen: Labels) -> Counts:
    """Count the rows [n] of each true and chosen class [classes, classes]."""
    cells = truth * _CLASSES + chosen
    return np.bincount(cells, minlength=_CLASSES**2).reshape(_CLASSES, _CLASSES)


def most_probable(probabilities: npt.NDArray[np.float32]) -> list[int]:
    """Return the most probable class of each row [n, classes]; on a tie the higher priority."""
    last = probabilities.shape[1] - 1
    return list((last - probabilities[:, ::-1].argmax(axis=1)).tolist())


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one set of answers is than another on the same rows, in one of `FIGURES`.

    `samples` holds the difference in each resample.
    """

    metric: str
    figure: float
    other: float
    samples: Floats

    @property
    def value(self) -> float:
        """The first minus the second: above 0 the first is better."""
        return round(self.figure - self.other, _PLACES)

    @property
    def interval(self) -> tuple[float, float]:
        """The 90% bootstrap interval; its lower end is the one-sided 95% lower bound."""
        low, high = np.percentile(self.samples, (5, 95)).tolist()
        return low, high

    @property
    def share_worse(self) -> float:
        """The share of resamples in which the first is worse than the second."""
        return float((self.samples < 0).mean())

    def as_dict(self) -> dict[str, Any]:
        """Return the figures and how sure their difference is, ready for JSON."""
        return {
            "metric": self.metric,
            "figure": self.figure,
            "other": self.other,
            "difference": self.value,
            "interval": list(self.interval),
            "share_worse": self.share_worse,
        }


def compare(
    labels: Labels,
    first: Labels,
    second: Labels,
    metric: str,
    *,
    groups: Sequence[str] | None = None,
) -> Difference:
    """Compare two sets of answers, class ids [n], on the same rows by a paired bootstrap.

    `metric` is a key of `FIGURES`; `groups` are drawn again whole, as in `report`.
    """
    figure = FIGURES[metric]
    cells = (labels * _CLASSES + first) * _CLASSES + second
    shape = (-1, _CLASSES, _CLASSES, _CLASSES)
    samples = _resample(cells, _units(groups, len(labels)), _CLASSES**3).reshape(shape)
    differences = figure(samples.sum(axis=3)) - figure(samples.sum(axis=2))
    return Difference(
        metric=metric,
        figure=float(figure(confusion_matrix(labels, first))),
        other=float(figure(confusion_matrix(labels, second))),
        # Equal figures may differ in the last bit of a float.
        samples=np.round(differences, _PLACES),
    )


def _accuracy(tables: Counts) -> Floats:
    return _ratio(_hits(tables).sum(axis=-1), tables.sum(axis=(-2, -1)))


def _macro_f1(tables: Counts) -> Floats:
    involved = tables.sum(axis=-1) + tables.sum(axis=-2)
    return _ratio(_f1(tables).sum(axis=-1), (involved > 0).sum(axis=-1))


def _weighted_kappa(tables: Counts) -> Floats:
    """Quadratically weighted: a miss by two classes weighs four times a miss by one."""
    weights = np.subtract.outer(np.arange(_CLASSES), np.arange(_CLASSES)) ** 2
    true, chosen = tables.sum(axis=-1), tables.sum(axis=-2)
    by_chance = (true[..., :, None] * chosen[..., None, :] * weights).sum(axis=(-2, -1))
    met = (tables * weights).sum(axis=(-2, -1)) * tables.sum(axis=(-2, -1))
    return np.where(by_chance > 0, 1 - _ratio(met, by_chance), 0.0)


FIGURES: Final[Mapping[str, Callable[[Counts], Floats]]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "weighted_kappa": _weighted_kappa,
}
"""The figures of a whole set of answers; higher is better."""


def _named_figures(costs: npt.ArrayLike | None) -> dict[str, Callable[[Counts], Floats]]:
    if costs is None:
        return dict(FIGURES)
    given = np.asarray(costs, dtype=np.float64)
    if given.shape != (_CLASSES, _CLASSES):
        raise ValueError(f"costs must hold {_CLASSES} rows of {_CLASSES} numbers")

    def mean_cost(tables: Counts) -> Floats:
        return _ratio((tables * given).sum(axis=(-2, -1)), tables.sum(axis=(-2, -1)))

    return {**FIGURES, "mean_cost": mean_cost}


def _precision(tables: Counts) -> Floats:
    return _ratio(_hits(tables), tables.sum(axis=-2))


def _recall(tables: Counts) -> Floats:
    return _ratio(_hits(tables), tables.sum(axis=-1))


def _f1(tables: Counts) -> Floats:
    return _ratio(2 * _hits(tables), tables.sum(axis=-1) + tables.sum(axis=-2))


def _hits(tables: Counts) -> Counts:
    return np.diagonal(tables, axis1=-2, axis2=-1)


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """Divide; 0 where there is nothing to divide by."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)


def _point_figures(
    table: Counts, named: Mapping[str, Callable[[Counts], Floats]]
) -> dict[str, Any]:
    precision, recall, f1 = _precision(table), _recall(table), _f1(table)
    return {
        **{name: float(figure(table)) for name, figure in named.items()},
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "support": int(table[index].sum()),
            }
            for index, name in enumerate(CLASS_NAMES)
        },
        "confusion_matrix": table.tolist(),
    }


def _units(groups: Sequence[str] | None, count: int) -> Labels:
    """Return the number of each row's unit of resampling: its group, or the row alone."""
    if groups is None:
        return np.arange(count)
    numbers: dict[str | int, int] = {}
    units = [numbers.setdefault(group or place, len(numbers)) for place, group in enumerate(groups)]
    return np.array(units, dtype=np.int64)


def _resample(cells: Labels, units: Labels, size: int) -> Counts:
    """Draw the units again and again, with replacement; return the cells' counts [RESAMPLES, size].

    Equal units are drawn together, in multinomially distributed numbers, so the time grows with the
    number of different units, not of rows.
    """
    held = np.bincount(units * size + cells, minlength=(int(units.max()) + 1) * size)
    kinds, counts = np.unique(held.reshape(-1, size), axis=0, return_counts=True)
    draws = np.random.default_rng(_SEED).multinomial(
        counts.sum(), counts / counts.sum(), size=RESAMPLES
    )
    return np.asarray(draws @ kinds)


def _intervals(
    samples: Counts, named: Mapping[str, Callable[[Counts], Floats]], *, units: int
) -> dict[str, Any]:
    """Return 95% intervals; a precision or recall that no resample defines has none."""
    per_class: dict[str, dict[str, list[float]]] = {name: {} for name in CLASS_NAMES}
    for figure, values, cases in (
        ("precision", _precision(samples), samples.sum(axis=-2)),
        ("recall", _recall(samples), samples.sum(axis=-1)),
    ):
        for index, name in enumerate(CLASS_NAMES):
            defined = values[cases[:, index] > 0, index]
            if len(defined):
                per_class[name][figure] = _interval(defined)
    return {
        "level": 0.95,
        "resamples": RESAMPLES,
        "units": units,
        **{name: _interval(figure(samples)) for name, figure in named.items()},
        "per_class": per_class,
    }


def _interval(values: Floats) -> list[float]:
    return list(np.percentile(values, (2.5, 97.5)).tolist())


def _calibration_error(truth: Labels, probabilities: npt.NDArray[np.float32]) -> float:
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_right = np.equal(most_probable(probabilities), truth)
    bins = (confidence * _BINS).astype(np.int64)
    gaps = np.bincount(bins, weights=is_right - confidence)
    return float(np.abs(gaps).sum() / len(truth))


def _coverage(
    truth: Labels, chosen: Labels, probabilities: npt.NDArray[np.float32]
) -> list[dict[str, float]]:
    confidence = probabilities[np.arange(len(truth)), chosen].astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum((truth == chosen)[order])
    ends = np.ceil(np.arange(1, _COVERAGE_POINTS + 1) * len(truth) / _COVERAGE_POINTS)
    points = []
    for threshold in dict.fromkeys(confidence[order[ends.astype(np.int64) - 1]].tolist()):
        answered = int((confidence >= threshold).sum())
        share, precision = answered / len(truth), float(hits[answered - 1] / answered)
        points.append({"confidence": threshold, "share": share, "precision": precision})
    return points


def _by_language(
    truth: Labels,
    chosen: Labels,
    probabilities: npt.NDArray[np.float32] | None,
    languages: Sequence[str],
) -> dict[str, dict[str, float | int]]:
    """Return the figures of each language, the most frequent first; "" is one that is unknown."""
    found = {}
    names = np.array(languages)
    for language, count in sorted(Counter(languages).items(), key=lambda one: (-one[1], one[0])):
        if count < MIN_LANGUAGE_ROWS:
            break
        rows = np.flatnonzero(names == language)
        table = confusion_matrix(truth[rows], chosen[rows])
        figures: dict[str, float | int] = {
            "n": count,
            "accuracy": float(_accuracy(table)),
            "macro_f1": float(_macro_f1(table)),
        }
        if probabilities is not None and count >= MIN_CALIBRATION_ROWS:
            figures["calibration_error"] = _calibration_error(truth[rows], probabilities[rows])
        found[language] = figures
    return found
