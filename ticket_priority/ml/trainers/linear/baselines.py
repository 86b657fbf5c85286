from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.trainers.linear.model import train as train_linear
from ticket_priority.ml.types import LabelledText


def majority(train: Sequence[LabelledText], test: Sequence[LabelledText]) -> dict[str, Any]:
    """Measure the most frequent class of `train`, on a tie the higher priority, on `test`."""
    counts = Counter(row.label for row in train)
    label = max(counts, key=lambda label: (counts[label], label))
    return metrics.report_on(test, [label] * len(test))


def tfidf_logreg(train: Sequence[LabelledText], test: Sequence[LabelledText]) -> dict[str, Any]:
    """Fit a linear model with balanced classes and C = 1 to `train`, and measure it on `test`.

    A class that `train` lacks gets probability 0. With a single class, or without words, this is
    `majority`.
    """
    try:
        model = train_linear(train)
    except TrainingError:
        return majority(train, test)
    probabilities = model.probabilities([row.text for row in test])
    return metrics.report_on(test, probabilities=probabilities)
