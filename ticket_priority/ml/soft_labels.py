"""Labels that allow for doubt.

People do not agree on priorities, so a label may be another person's Medium. A model that is made
to reproduce each one learns its chance by heart. Part of each label is given to what a simpler
model, which was fitted to other tickets, makes of the text (Hinton et al., 2015, "Distilling the
knowledge in a neural network", with a teacher that never saw the label).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ticket_priority.exceptions import TrainingError
from ticket_priority.interfaces import CLASS_NAMES, LabelledText
from ticket_priority.ml import linear

FOLDS: Final = 5


def soft_labels(
    rows: Sequence[LabelledText], teacher: linear.Trial, share: float
) -> npt.NDArray[np.float32]:
    """Return a probability for each class [rows, classes]: `1 - share` of it the row's label.

    The rest is the answer of a linear model that is fitted as `teacher` was, to rows of other
    folds; near-copies are in one. Rows keep their labels where the other folds teach nothing.
    """
    folds = np.array([_fold(row, place) for place, row in enumerate(rows)])
    labels = np.eye(len(CLASS_NAMES), dtype=np.float32)[[row.label for row in rows]]
    for fold in np.unique(folds):
        judged = np.flatnonzero(folds == fold).tolist()
        others = [rows[place] for place in np.flatnonzero(folds != fold).tolist()]
        try:
            fitted = linear.train(
                others,
                strength=teacher.strength,
                class_weight=teacher.class_weight,
                weighted=True,
            )
        except TrainingError:
            continue
        model = replace(fitted, temperature=teacher.model.temperature)
        answers = model.probabilities([rows[place].text for place in judged])
        labels[judged] = (1 - share) * labels[judged] + share * answers
    return labels


def _fold(row: LabelledText, place: int) -> int:
    return zlib.crc32((row.group or f"row {place}").encode()) % FOLDS
