"""What a model must beat: the most frequent class, and word and letter counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from ticket_priority.interfaces import CLASS_NAMES, LabelledText
from ticket_priority.ml import metrics

_LARGE = 20_000
"""From so many rows on, letter counts add minutes and gigabytes but no accuracy to speak of."""


def majority(train: Sequence[LabelledText], test: Sequence[LabelledText]) -> dict[str, Any]:
    """Score the answer "the most frequent class of `train`" on `test`; on a tie the graver one."""
    counts = Counter(row.label for row in train)
    label = max(counts, key=lambda label: (counts[label], label))
    return metrics.report([row.label for row in test], [label] * len(test))


def tfidf_logreg(train: Sequence[LabelledText], test: Sequence[LabelledText]) -> dict[str, Any]:
    """Fit TF-IDF and balanced logistic regression on `train` and score them on `test`.

    Words and pairs of words, and 3 to 5 letters within a word. A class that `train` lacks gets
    probability 0; with one class alone, or no usable word, the answer is the majority's.
    """
    labels = [row.label for row in train]
    pipeline = _pipeline(len(train))
    try:
        pipeline.fit([row.text for row in train], labels)
    except ValueError:
        # scikit-learn refuses a single class and an empty vocabulary; the majority is then all
        # there is to learn.
        return majority(train, test)
    probabilities = np.zeros((len(test), len(CLASS_NAMES)), dtype=np.float32)
    probabilities[:, pipeline.classes_] = pipeline.predict_proba([row.text for row in test])
    return metrics.report([row.label for row in test], probabilities=probabilities)


def _pipeline(rows: int) -> Pipeline:
    words = TfidfVectorizer(
        ngram_range=(1, 2),
        min_df=1 if rows < 1000 else 2,
        max_features=50_000,
        sublinear_tf=True,
        dtype=np.float32,
    )
    letters = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(3, 5),
        min_df=2,
        max_features=100_000,
        sublinear_tf=True,
        dtype=np.float32,
    )
    features = words if rows >= _LARGE else make_union(words, letters)
    return make_pipeline(features, LogisticRegression(class_weight="balanced", max_iter=1000))
