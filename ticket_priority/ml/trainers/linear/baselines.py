"""What a model must beat: the most frequent class, and word and letter counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.types import LabelledText


def majority(train: Sequence[LabelledText], test: Sequence[LabelledText]) -> dict[str, Any]:
    """Score the most frequent class of `train`, on a tie the higher priority, on `test`."""
    counts = Counter(row.label for row in train)
    label = max(counts, key=lambda label: (counts[label], label))
    return metrics.report_on(test, [label] * len(test))


def tfidf_logreg(train: Sequence[LabelledText], test: Sequence[LabelledText]) -> dict[str, Any]:
    """Fit a linear model with balanced classes on `train`, untuned, and score it on `test`.

    A class that `train` lacks gets probability 0; with one class alone, or no usable word, the
    answer is the majority's.
    """
    try:
        model = linear.train(train)
    except TrainingError:
        return majority(train, test)
    probabilities = model.probabilities([row.text for row in test])
    return metrics.report_on(test, probabilities=probabilities)
