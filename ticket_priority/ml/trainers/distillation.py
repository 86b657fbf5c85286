"""Soft labels, by distillation.

People do not agree on priorities, so labels are noisy, and a model that reproduces each one learns
the noise. A share of each label is therefore replaced by the probabilities of a teacher: a linear
model fitted to other tickets (Hinton et al., 2015, "Distilling the knowledge in a neural network").
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.trainers.linear.model import Trial, answers_out_of_fold
from ticket_priority.ml.types import CLASS_NAMES, LabelledText

FOLDS: Final = 5


def soft_labels(
    rows: Sequence[LabelledText], teacher: Trial, share: float
) -> npt.NDArray[np.float32]:
    """Return probabilities [rows, classes]: `1 - share` of the row's label, the rest a teacher's.

    The teacher of a fold is fitted as `teacher` was, but to the other folds; near-copies are in one
    fold. Rows keep their labels where the other folds have a single class.
    """
    folds = np.zeros(len(rows), np.int64)
    labels = np.zeros((len(rows), len(CLASS_NAMES)), np.float32)
    for place, row in enumerate(rows):
        folds[place] = zlib.crc32((row.group or f"row {place}").encode()) % FOLDS
        labels[place, row.label] = 1
    answers = answers_out_of_fold(rows, teacher, folds)
    has_answer = answers.any(axis=1)
    labels[has_answer] = (1 - share) * labels[has_answer] + share * answers[has_answer]
    return labels
