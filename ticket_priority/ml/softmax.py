"""From scores to probabilities. Needs numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def softmax(scores: npt.NDArray[Any], temperature: float = 1.0) -> Numbers:
    """Return the probabilities of scores [rows, classes], which `temperature` divides."""
    return np.asarray(np.exp(log_softmax(scores, temperature)))


def log_softmax(scores: npt.NDArray[Any], temperature: float = 1.0) -> Numbers:
    """Return the logarithms of `softmax`; a class may get minus infinity at a tiny temperature."""
    with np.errstate(over="ignore"):
        shifted = (scores - scores.max(axis=1, keepdims=True)) / temperature
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
