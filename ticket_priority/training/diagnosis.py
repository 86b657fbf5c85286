"""How good the labelled tickets are, before anything is trained on them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, Final

import numpy as np
from django.utils.module_loading import import_string

from ticket_priority.exceptions import DatasetError
from ticket_priority.ml.types import CLASS_NAMES, LabelledText, LabelSuspicion
from ticket_priority.training.dataset import Dataset, check_sufficient

FITTED_ROWS: Final = 5000
"""A quick model is fitted to so many tickets at most, drawn at random."""

SMALL_CLASS: Final = 50
SIGNIFICANT: Final = 0.05
TELLING_GAIN: Final = 0.1
"""A field that beats the most frequent class by so much is reported."""

MORE_HELPS: Final = 0.01
_ENOUGH_COPIES: Final = 30
_FIELDS: Final = ("language", "segment", "source")
# By dotted path, because a web process never imports a trainer.
_EXAMINER: Final = "ticket_priority.ml.trainers.label_quality.examine"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A ticket whose label is likely wrong."""

    row: LabelledText
    suspicion: LabelSuspicion

    def as_dict(self, *, with_text: bool = False) -> dict[str, Any]:
        """Return it ready for JSON."""
        values = {
            "source": self.row.source,
            "pk": self.row.pk,
            "label": CLASS_NAMES[self.suspicion.label],
            "looks_like": CLASS_NAMES[self.suspicion.looks_like],
            "probability": round(self.suspicion.probability, 3),
            "provenance": self.row.provenance,
        }
        return values | {"text": self.row.text} if with_text else values


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Figures ready for JSON, the likely mislabels, and why training would be refused; or ""."""

    figures: dict[str, Any]
    suspects: list[Suspect] = field(default_factory=list)
    refusal: str = ""

    def findings(self) -> Iterator[str]:
        """Yield each problem as a sentence."""
        figures = self.figures
        for name, count in figures["small_classes"].items():
            yield (
                f"Only {_counted(count, 'ticket is', 'tickets are')} {name}: figures about this "
                f"class say little below {SMALL_CLASS}."
            )
        for name, kind in (("same_texts", "the same text"), ("near_copies", "near-copies")):
            if conflicting := figures[name]["conflicting"]:
                one, many = (
                    f"group of tickets with {kind} bears",
                    f"groups of tickets with {kind} bear",
                )
                yield (
                    f"{_counted(conflicting, one, many)} different labels; "
                    f"two of a group agree in {figures[name]['share']:.0%} of the cases."
                )
        if leaked := figures["leakage"]["near_copies"]:
            yield (
                f"{_counted(leaked, 'test ticket has', 'test tickets have')} a near-copy among "
                "those to train: the figures will be too good."
            )
        for name, told in figures["fields"].items():
            if told["accuracy"] - told["majority"] >= TELLING_GAIN:
                yield (
                    f"The {name} alone tells the label in {told['accuracy']:.0%} of the cases (the "
                    f"most frequent class: {told['majority']:.0%}). A model may learn it instead "
                    "of what the tickets say."
                )
        yield from self._fitted_findings()

    @property
    def has_nothing_to_learn(self) -> bool:
        """Whether enough labels are there, and a quick model is no better at them than chance."""
        fitted = self.figures.get("fitted")
        return not self.refusal and fitted is not None and fitted["p_value"] >= SIGNIFICANT

    def _fitted_findings(self) -> Iterator[str]:
        fitted = self.figures.get("fitted")
        # A quick model's figures mean nothing where there is too little to train on.
        if fitted is None or self.refusal:
            return
        if self.has_nothing_to_learn:
            yield (
                "There is nothing to learn that a quick model could find: out of fold its macro F1 "
                f"is {fitted['macro_f1']:.3f}, no better than by chance (p = "
                f"{fitted['p_value']:.2f}). Look at how priorities are set before you train."
            )
            return
        if wrong := fitted["likely_mislabels"]:
            verb = "is" if wrong == 1 else "are"
            yield f"{wrong} of {fitted['rows']} tickets {verb} likely mislabelled."
        if curve := fitted.get("learning_curve"):
            gain = curve[-1]["macro_f1"] - curve[-2]["macro_f1"]
            verdict = f"more labels would help{'' if gain > MORE_HELPS else ' little'}"
            yield (
                f"The last quarter of the labels gave {100 * gain:+.1f} points of macro F1 to a "
                f"quick model: {verdict}."
            )


def diagnose(dataset: Dataset, *, learning_curve: bool = True) -> Diagnosis:
    """Look at the labels of all splits; fits a quick model several times, in bounded time.

    Without the extra `linear` or `ml`, what needs a model is left out.
    """
    seen = _Seen(dataset)
    counts = zip(CLASS_NAMES, seen.class_counts(), strict=True)
    figures: dict[str, Any] = {
        **dataset.summary(),
        "languages": dict(seen.values["language"]),
        "small_classes": {name: count for name, count in counts if 0 < count < SMALL_CLASS},
        "fields": seen.telling_fields(),
    }
    figures["fitted"], suspects = _examine(seen.sample(dataset), learning_curve)
    figures["reach"] = _reach(figures, figures["fitted"])
    try:
        check_sufficient(dataset)
    except DatasetError as error:
        return Diagnosis(figures, suspects, str(error))
    return Diagnosis(figures, suspects)


class _Seen:
    """What is counted while all the rows are read once."""

    def __init__(self, dataset: Dataset) -> None:
        labels = array("b")
        self.tables: dict[str, dict[str, Counter[int]]] = {name: {} for name in _FIELDS}
        self.values: dict[str, Counter[str]] = {name: Counter() for name in _FIELDS}
        for rows in (dataset.train, dataset.validation, dataset.test):
            for row in rows:
                labels.append(row.label)
                for name in _FIELDS:
                    value = getattr(row, name)
                    self.values[name][value] += 1
                    self.tables[name].setdefault(value, Counter())[row.label] += 1
        self.labels = np.frombuffer(labels, dtype=np.int8)

    def class_counts(self) -> list[int]:
        counts: list[int] = np.bincount(self.labels, minlength=len(CLASS_NAMES)).tolist()
        return counts

    def telling_fields(self) -> dict[str, dict[str, float]]:
        """Say how often the label is the most frequent one among the others of the same value."""
        majority = max(self.class_counts()) / max(len(self.labels), 1)
        return {
            name: {
                "accuracy": _told(table.values(), len(self.labels)),
                "majority": majority,
                "values": len(table),
            }
            for name, table in self.tables.items()
            if len(table) > 1
        }

    def sample(self, dataset: Dataset) -> list[LabelledText]:
        parts = (dataset.train, dataset.validation, dataset.test)
        edges = np.cumsum([0, *map(len, parts)])
        draw = np.random.default_rng(20)
        total = len(self.labels)
        chosen = np.sort(draw.permutation(total)[:FITTED_ROWS])
        rows = []
        for part, start, end in zip(parts, edges[:-1], edges[1:], strict=True):
            places = chosen[(chosen >= start) & (chosen < end)] - start
            rows += [part[place] for place in places.tolist()]
        return rows


def _told(tables: Iterable[Counter[int]], rows: int) -> float:
    """Return how often a row's label is the most frequent one of the other rows of its table."""
    right = 0
    for table in tables:
        for label, count in table.items():
            others = {other: number - (other == label) for other, number in table.items()}
            most = max(others.values())
            # On a tie another class is guessed, so that no guess is right by the row itself.
            leading = [other for other, number in others.items() if number == most > 0]
            right += count if leading == [label] else 0
    return right / rows if rows else 0.0


def _examine(
    rows: Sequence[LabelledText], learning_curve: bool
) -> tuple[dict[str, Any] | None, list[Suspect]]:
    try:
        examine: Callable[..., dict[str, Any] | None] = import_string(_EXAMINER)
    except ImportError:
        return None, []
    fitted = examine(rows, learning_curve=learning_curve)
    if fitted is None:
        return None, []
    suspicions: list[LabelSuspicion] = fitted.pop("suspicions")
    fitted["likely_mislabels"] = len(suspicions)
    return fitted, [Suspect(rows[one.place], one) for one in suspicions]


def _reach(figures: Mapping[str, Any], fitted: Mapping[str, Any] | None) -> dict[str, Any]:
    """Estimate the lowest and highest accuracy of a model of these labels; None where unknown.

    `floor` is what a quick model reaches out of fold. `ceiling`: tickets with nearly the same text
    get the same answer, so if two of their labels agree in a share a of the cases, no model is
    right more often than sqrt(a). It assumes that the other tickets are labelled like these.
    """
    compared = [figures["same_texts"], figures["near_copies"]]
    rows = sum(one["compared"] for one in compared)
    ceiling = None
    if rows >= _ENOUGH_COPIES:
        agreeing = sum(one["share"] * one["compared"] for one in compared if one["compared"])
        ceiling = sqrt(agreeing / rows)
    floor = None if fitted is None else fitted["accuracy"]
    return {"floor": floor, "ceiling": ceiling, "compared": rows}


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
