"""Labels that allow for doubt.

People do not agree on priorities, so a label may be another person's Medium. A model that is made
to reproduce each one learns its chance by heart. Part of each label is given to what a simpler
model, which was fitted to other tickets, makes of the text (Hinton et al., 2015, "Distilling the
knowledge in a neural network", with a teacher that never saw the label).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.types import CLASS_NAMES, LabelledText

FOLDS: Final = 5


def soft_labels(
    rows: Sequence[LabelledText], teacher: linear.Trial, share: float
) -> npt.NDArray[np.float32]:
    """Return a probability for each class [rows, classes]: `1 - share` of it the row's label.

    The rest is the answer of a linear model that is fitted as `teacher` was, to rows of other
    folds; near-copies are in one. Rows keep their labels where the other folds teach nothing.
    """
    folds = np.zeros(len(rows), np.int64)
    labels = np.zeros((len(rows), len(CLASS_NAMES)), np.float32)
    for place, row in enumerate(rows):
        folds[place] = zlib.crc32((row.group or f"row {place}").encode()) % FOLDS
        labels[place, row.label] = 1
    answers = linear.answers_out_of_fold(rows, teacher, folds)
    has_answer = answers.any(axis=1)
    labels[has_answer] = (1 - share) * labels[has_answer] + share * answers[has_answer]
    return labels
