"""Calibration by temperature scaling (Guo et al., 2017). Needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.softmax import log_softmax

Numbers = npt.NDArray[np.float64]

_TEMPERATURES: Final = np.geomspace(0.1, 10.0, 401)


def fit_temperature(scores: npt.NDArray[Any], labels: Sequence[int]) -> float:
    """Return what to divide scores [rows, classes] by for the least loss; 1 without a row.

    Scores are logits, or logarithms of probabilities. A row with the label -1, a class that has
    no column, is left out.
    """
    truth = np.asarray(labels, np.int64)
    if not (truth >= 0).any():
        return 1.0
    losses = [cross_entropy(scores / temperature, truth) for temperature in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def log_probabilities(probabilities: npt.NDArray[Any]) -> Numbers:
    """Return logarithms that are finite, also of a probability that was rounded to 0."""
    smallest = np.finfo(np.float32).tiny
    return np.asarray(np.log(np.maximum(np.asarray(probabilities, np.float64), smallest)))


def cross_entropy(scores: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """Return the mean loss over the rows whose label is not -1; 0 without one."""
    rows = np.flatnonzero(labels >= 0)
    return float(-log_softmax(scores)[rows, labels[rows]].mean()) if len(rows) else 0.0
