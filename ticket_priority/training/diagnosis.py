"""How good the labelled tickets are, before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
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
    tables = _tables(dataset)
    labels = sum(tables["source"].values(), Counter[int]())
    majority = max(labels.values(), default=0) / max(len(dataset), 1)
    figures: dict[str, Any] = {
        **dataset.summary(),
        "languages": {value: counts.total() for value, counts in tables["language"].items()},
        "small_classes": {
            name: labels[place]
            for place, name in enumerate(CLASS_NAMES)
            if 0 < labels[place] < SMALL_CLASS
        },
        "fields": {
            name: {"accuracy": _told(table), "majority": majority, "values": len(table)}
            for name, table in tables.items()
            if len(table) > 1
        },
    }
    figures["fitted"], suspects = _examine(_sample(dataset), learning_curve)
    figures["reach"] = _reach(figures)
    try:
        check_sufficient(dataset)
    except DatasetError as error:
        return Diagnosis(figures, suspects, str(error))
    return Diagnosis(figures, suspects)


def _tables(dataset: Dataset) -> dict[str, dict[str, Counter[int]]]:
    """Count the labels by field and its value."""
    tables: dict[str, dict[str, Counter[int]]] = {name: {} for name in _FIELDS}
    for row in chain(dataset.train, dataset.validation, dataset.test):
        for name in _FIELDS:
            tables[name].setdefault(getattr(row, name), Counter())[row.label] += 1
    return tables


def _told(table: Mapping[str, Counter[int]]) -> float:
    """Return how often a label is the most frequent one of the other rows with the same value."""
    right = sum(
        count
        for labels in table.values()
        for label, count in labels.items()
        # On a tie another class is guessed, so that no guess is right by the row itself.
        if count - 1 > max((labels[other] for other in labels if other != label), default=0)
    )
    return right / sum(labels.total() for labels in table.values())


def _sample(dataset: Dataset) -> list[LabelledText]:
    rows: list[LabelledText] = []
    chosen = np.sort(np.random.default_rng(20).permutation(len(dataset))[:FITTED_ROWS])
    for part in (dataset.train, dataset.validation, dataset.test):
        rows += [part[place] for place in chosen[(chosen >= 0) & (chosen < len(part))].tolist()]
        chosen -= len(part)
    return rows


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


def _reach(figures: Mapping[str, Any]) -> dict[str, Any]:
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
    fitted = figures["fitted"]
    return {"floor": fitted and fitted["accuracy"], "ceiling": ceiling, "compared": rows}


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
