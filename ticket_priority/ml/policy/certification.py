"""Certification: which answers are right often enough to be applied without a person.

Thresholds are chosen on the validation split and tested on the test split, which the model was not
fitted to. Needs numpy and scipy.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Self

try:
    import numpy as np
    import numpy.typing as npt
    from scipy.special import betaincinv
except ImportError as error:
    raise ImportError(
        "Certifying needs numpy and scipy. Install what training needs with: "
        'pip install "django-ticket-priority[ml]", or [linear] for linear models alone'
    ) from error

from ticket_priority.ml.policy.rule import Certificate, Certification, Costs, choose
from ticket_priority.ml.types import CLASS_NAMES, Classifier, LabelledText

ERROR_RATE: Final = 0.05
"""The chance that a certificate is wrong, for each class and language."""

MIN_ROWS: Final = 50
"""The fewest answers of a class in each of both splits that can be certified."""

STEPS: Final = 8
"""How many thresholds are tried on the test split at most, from strict to loose."""

_DIGITS: Final = 10_000
_BATCH: Final = 2_000

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to labelled tickets, one of each group of near-copies.

    Arrays of one length: the class id that was chosen, its probability, whether it is the label,
    and the ticket's language.
    """

    chosen: npt.NDArray[np.int8]
    confidence: Floats
    is_right: Flags
    languages: npt.NDArray[np.str_]

    @classmethod
    def of(
        cls, classifier: Classifier, rows: Sequence[LabelledText], costs: Costs | None = None
    ) -> Self:
        """Classify the rows, and choose the classes by the costs."""
        chosen, confidence, is_right = array("b"), array("d"), array("b")
        languages: list[str] = []
        kept = _one_a_group(rows)
        # Rows are read from disk, so few texts are in memory at once.
        while batch := list(islice(kept, _BATCH)):
            given = classifier.classify([row.text for row in batch])
            for row, answer in zip(batch, given, strict=True):
                decided = choose(answer, costs)
                chosen.append(decided.priority)
                confidence.append(decided.confidence)
                is_right.append(decided.priority == row.label)
                languages.append(row.language)
        return cls(
            np.array(chosen, dtype=np.int8),
            np.array(confidence, dtype=np.float64),
            np.array(is_right, dtype=bool),
            np.array(languages, dtype=np.str_),
        )

    def take(self, rows: Flags) -> Answers:
        """Return the answers that a mask [n] selects."""
        return Answers(
            self.chosen[rows], self.confidence[rows], self.is_right[rows], self.languages[rows]
        )

    def __len__(self) -> int:
        return len(self.chosen)


def _one_a_group(rows: Iterable[LabelledText]) -> Iterator[LabelledText]:
    """Yield the first row of each group: near-copies are not independent."""
    seen: set[str] = set()
    for row in rows:
        if not row.group or row.group not in seen:
            seen.add(row.group)
            yield row


def lower_bound(hits: Any, rows: Any, error_rate: float = ERROR_RATE) -> Any:
    """Return the one-sided lower bound (Clopper-Pearson) of a share of `hits` in `rows`.

    Takes numbers or arrays; 0 where there are no hits.
    """
    hits, rows = np.asarray(hits), np.asarray(rows)
    found = betaincinv(np.maximum(hits, 1), rows - hits + 1, error_rate)
    return np.where(hits > 0, found, 0.0)


def interval(hits: int, rows: int) -> tuple[float, float]:
    """Return the two-sided 95% interval (Clopper-Pearson) of a share."""
    half = ERROR_RATE / 2
    low, high = lower_bound(hits, rows, half), 1.0 - lower_bound(rows - hits, rows, half)
    return float(low), float(high)


def certify(
    classifier: Classifier,
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    *,
    targets: Mapping[str, float],
    costs: Costs | None = None,
) -> Certification:
    """Find out which answers of a model reach the precisions in `targets`, by class name.

    `test` may hold no row that the model was fitted to. `validation` may, as for a model of few
    labels: its thresholds are then worse, but the certificates still hold.
    """
    tried, tested = (Answers.of(classifier, rows, costs) for rows in (validation, test))
    certificates = tuple(
        certificate
        for name, target in targets.items()
        for certificate in certificates_of(name, target, tried, tested)
    )
    return Certification(targets, costs, certificates)


def certificates_of(
    name: str, target: float, validation: Answers, test: Answers
) -> list[Certificate]:
    """Certify the answers of one class: each language that has enough of them, and the others.

    Each certificate is wrong, its precision below the target, with a chance of 5% at most.
    """
    label = CLASS_NAMES.index(name)
    validation, test = (answers.take(answers.chosen == label) for answers in (validation, test))
    counts = [Counter(answers.languages.tolist()) for answers in (validation, test)]
    own = sorted(
        language
        for language in counts[1]
        if language and min(count[language] for count in counts) >= MIN_ROWS
    )
    others = sorted(set(counts[1]) - set(own))
    found = [
        _certificate(name, language, (language,), target, *_within(validation, test, [language]))
        for language in own
    ]
    if others or not own:
        rest = _within(validation, test, own, among=False)
        found.append(_certificate(name, "", tuple(others), target, *rest))
    return found


def _within(
    validation: Answers, test: Answers, languages: list[str], *, among: bool = True
) -> tuple[Answers, Answers]:
    """Keep the answers about tickets in these languages; `among` False: in none of them."""
    first, second = (
        answers.take(np.isin(answers.languages, languages) == among)
        for answers in (validation, test)
    )
    return first, second


def _certificate(
    name: str,
    language: str,
    languages: tuple[str, ...],
    target: float,
    validation: Answers,
    test: Answers,
) -> Certificate:
    chosen, reason = None, ""
    if min(len(validation), len(test)) < MIN_ROWS:
        reason = (
            f"too few answers: {len(validation)} in the validation split and {len(test)} in the "
            f"test split, {MIN_ROWS} are needed in each"
        )
    else:
        for threshold in thresholds(validation, target):
            tried = _Tried.on(test, threshold)
            if tried.lower_bound < target:
                # Stopping bounds the error of all thresholds together (fixed sequence testing).
                if chosen is None:
                    chosen = tried
                    reason = f"the precision may be as low as {tried.lower_bound:.3f}"
                break
            chosen = tried
    rows = chosen.rows if chosen else 0
    return Certificate(
        priority=name,
        language=language,
        languages=languages,
        target=target,
        threshold=chosen.threshold if chosen else None,
        rows=rows,
        precision=chosen.hits / rows if chosen and rows else None,
        lower_bound=chosen.lower_bound if chosen else None,
        coverage=rows / len(test) if len(test) else 0.0,
        holds=not reason,
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class _Tried:
    """How a threshold does on the test split."""

    threshold: float
    rows: int
    hits: int
    lower_bound: float

    @classmethod
    def on(cls, test: Answers, threshold: float) -> Self:
        covered = test.confidence >= threshold
        rows, hits = int(covered.sum()), int(test.is_right[covered].sum())
        return cls(threshold, rows, hits, float(lower_bound(hits, rows)))


def thresholds(validation: Answers, target: float) -> list[float]:
    """Return the thresholds to test, from strict to loose.

    The first has the highest lower bound on the validation split, the last is the loosest that
    still reaches the target there.
    """
    # Rounded down, so that a threshold covers the answer that it comes from.
    confidence = np.floor(validation.confidence * _DIGITS) / _DIGITS
    surest_first = np.argsort(-confidence, kind="stable")
    candidates, counts = np.unique(-confidence, return_counts=True)
    rows = np.cumsum(counts)
    hits = np.cumsum(validation.is_right[surest_first])[rows - 1]
    bounds = lower_bound(hits, rows)
    first = int(np.flatnonzero(bounds == bounds.max())[-1])
    reaching = np.flatnonzero(hits >= target * rows)
    last = max(first, int(reaching[-1])) if len(reaching) else first
    places = np.unique(np.linspace(first, last, STEPS).round().astype(int))
    return [float(threshold) for threshold in -candidates[places]]
