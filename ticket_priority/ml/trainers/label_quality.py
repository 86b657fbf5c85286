"""Measure how good labels are: TF-IDF and logistic regression in five-fold cross-validation.

Near-copies are in one fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.types import CLASS_NAMES, LabelledText, LabelSuspicion

FOLDS: Final = 5
SHARES: Final = (0.25, 0.5, 0.75, 1.0)

GUESS: Final = 0.6
"""A class with a lower probability is never believed: it is a guess of a weak model."""

CERTAIN: Final = 0.8
"""A class with a higher probability is always believed, even of a strong model."""

_PERMUTATIONS: Final = 1000
_READ_CHARACTERS: Final = 2000
_SEED: Final = 20

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def examine(rows: Sequence[LabelledText], *, learning_curve: bool = True) -> dict[str, Any] | None:
    """Return how well texts predict the labels, and which labels look wrong.

    None where there is too little to fit a model to. Keys: `rows`; `accuracy`, `macro_f1` and
    `majority_macro_f1` out of fold; `p_value` of the hypothesis that texts say nothing about
    labels; `suspicions` (likely mislabels, the likeliest first, by the row's place);
    `learning_curve` (rows and macro-F1, where asked for).
    """
    data = _Examined.of(rows)
    if data is None:
        return None
    try:
        probabilities = _out_of_fold(data)
    except ValueError:
        # No text has a word that the vectoriser keeps, or a fold has one class.
        return None
    predicted = probabilities.argmax(axis=1)
    majority = np.full_like(data.labels, np.bincount(data.labels).argmax())
    figures: dict[str, Any] = {
        "rows": len(data.labels),
        "accuracy": float((predicted == data.labels).mean()),
        "macro_f1": _macro_f1(data.labels, predicted),
        "majority_macro_f1": _macro_f1(data.labels, majority),
        "p_value": _p_value(data.labels, predicted),
        "suspicions": _suspicions(data.labels, probabilities),
    }
    if learning_curve:
        figures["learning_curve"] = _learning_curve(data)
    return figures


@dataclass(frozen=True, slots=True)
class _Examined:
    texts: npt.NDArray[np.object_]
    labels: Labels
    groups: Labels
    folds: int

    @classmethod
    def of(cls, rows: Sequence[LabelledText]) -> _Examined | None:
        labels = np.array([row.label for row in rows], dtype=np.int64)
        names = [row.group or f"row {place}" for place, row in enumerate(rows)]
        _, groups = np.unique(names, return_inverse=True)
        present = np.unique(labels)
        if len(present) < 2:
            return None
        fewest = min(len(np.unique(groups[labels == label])) for label in present)
        if fewest < 2:
            return None
        texts = np.array([row.text[:_READ_CHARACTERS] for row in rows], dtype=object)
        return cls(texts, labels, groups, min(FOLDS, fewest))

    def split(self, seed: int = _SEED) -> list[tuple[Labels, Labels]]:
        splitter = StratifiedGroupKFold(self.folds, shuffle=True, random_state=seed)
        return list(splitter.split(self.texts, self.labels, self.groups))

    def fit(self, rows: Labels) -> Pipeline:
        words = TfidfVectorizer(ngram_range=(1, 2), max_features=20_000, sublinear_tf=True)
        regression = LogisticRegression(class_weight="balanced", max_iter=1000)
        return make_pipeline(words, regression).fit(self.texts[rows], self.labels[rows])


def _out_of_fold(data: _Examined) -> Probabilities:
    """Return the probabilities [rows, classes] of models that did not train on the row."""
    probabilities = np.zeros((len(data.labels), len(CLASS_NAMES)))
    for train, held_out in data.split():
        model = data.fit(train)
        found = model.predict_proba(data.texts[held_out])
        probabilities[np.ix_(held_out, model.classes_)] = found
    return probabilities


def _p_value(labels: Labels, predicted: Labels) -> float:
    """Return the share of shuffled labels that agree as well with the predictions."""
    draw = np.random.default_rng(_SEED)
    score = _macro_f1(labels, predicted)
    as_good = sum(
        _macro_f1(draw.permutation(labels), predicted) >= score for _ in range(_PERMUTATIONS)
    )
    return (as_good + 1) / (_PERMUTATIONS + 1)


def _suspicions(labels: Labels, probabilities: Probabilities) -> list[LabelSuspicion]:
    """Return likely mislabels by confident learning (Northcutt et al., 2021), likeliest first.

    A class is believed of a row where its probability reaches a threshold: its mean probability on
    the rows with its label. It is at least `GUESS`, or a weak model would doubt a third of the
    labels, and at most `CERTAIN`, or a strong one would miss every second mislabel.
    """
    classes = len(CLASS_NAMES)
    thresholds = np.array(
        [
            probabilities[labels == label, label].mean() if (labels == label).any() else np.inf
            for label in range(classes)
        ]
    )
    believed = np.where(probabilities >= np.clip(thresholds, GUESS, CERTAIN), probabilities, -1.0)
    best = believed.argmax(axis=1)
    rows = np.flatnonzero((believed.max(axis=1) > 0) & (best != labels))
    margins = probabilities[rows, best[rows]] - probabilities[rows, labels[rows]]
    return [
        LabelSuspicion(row, int(labels[row]), int(best[row]), float(probabilities[row, best[row]]))
        for row in rows[np.argsort(-margins, kind="stable")].tolist()
    ]


def _learning_curve(data: _Examined) -> list[dict[str, float]]:
    """Return macro-F1 out of fold for growing shares of the training folds."""
    curve = []
    draw = np.random.default_rng(_SEED)
    shuffled = [(draw.permutation(train), held_out) for train, held_out in data.split(_SEED + 1)]
    for share in SHARES:
        predicted = np.empty_like(data.labels)
        sizes = []
        for train, held_out in shuffled:
            part = train[: max(2, round(share * len(train)))]
            sizes.append(len(part))
            known = np.unique(data.labels[part])
            predicted[held_out] = (
                known[0] if len(known) < 2 else data.fit(part).predict(data.texts[held_out])
            )
        score = _macro_f1(data.labels, predicted)
        curve.append({"rows": round(float(np.mean(sizes))), "macro_f1": score})
    return curve


def _macro_f1(labels: Labels, predicted: Labels) -> float:
    # Faster than scikit-learn's, as a thousand permutations need.
    return float(metrics.FIGURES["macro_f1"](metrics.confusion_matrix(labels, predicted)))
