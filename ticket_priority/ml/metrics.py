"""How good a set of predictions is, as JSON-ready figures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from ticket_priority.interfaces import CLASS_NAMES

_CLASSES = list(range(len(CLASS_NAMES)))
_BINS = 15


def report(
    labels: Sequence[int],
    predicted: Sequence[int] | None = None,
    *,
    probabilities: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Compare predictions with the true class ids.

    Give `predicted` class ids [n], or `probabilities` [n, classes], from which the most probable
    class is taken (on a tie the graver one) and the expected calibration error (15 bins) is added.
    Every figure is defined whatever classes occur: macro-F1 averages over the classes that are
    true or predicted at least once, a precision or recall without a case is 0, and so is a kappa
    that chance alone explains. `confusion_matrix` has a row for each true class and a column for
    each predicted one. Raises ValueError without a single row.
    """
    truth = np.asarray(labels, dtype=np.int64)
    if len(truth) == 0:
        raise ValueError("metrics need at least one labelled row")
    figures: dict[str, Any] = {"n": len(truth)}
    if probabilities is not None:
        scores = np.asarray(probabilities, dtype=np.float32)
        if predicted is None:
            predicted = most_probable(scores)
        figures["calibration_error"] = _calibration_error(truth, scores)
    if predicted is None:
        raise ValueError("give predicted class ids or probabilities")
    chosen = np.asarray(predicted, dtype=np.int64)
    figures |= {
        "accuracy": float(accuracy_score(truth, chosen)),
        "macro_f1": float(f1_score(truth, chosen, average="macro", zero_division=0.0)),
        "weighted_kappa": _weighted_kappa(truth, chosen),
        "per_class": _per_class(truth, chosen),
        "confusion_matrix": confusion_matrix(truth, chosen, labels=_CLASSES).tolist(),
    }
    return figures


def most_probable(probabilities: npt.NDArray[np.float32]) -> list[int]:
    """Return the most probable class of each row [n, classes]; on a tie the graver one."""
    last = probabilities.shape[1] - 1
    chosen: list[int] = (last - probabilities[:, ::-1].argmax(axis=1)).tolist()
    return chosen


def _weighted_kappa(truth: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> float:
    with warnings.catch_warnings():
        # One class only on both sides: documented as 0, so not worth a warning.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        kappa = cohen_kappa_score(
            truth, chosen, labels=_CLASSES, weights="quadratic", replace_undefined_by=0.0
        )
    return float(kappa)


def _calibration_error(
    truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]
) -> float:
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_right = np.equal(most_probable(probabilities), truth)
    bins = (confidence * _BINS).astype(np.int64)
    gaps = np.bincount(bins, weights=is_right - confidence)
    return float(np.abs(gaps).sum() / len(truth))


def _per_class(
    truth: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> dict[str, dict[str, float | int]]:
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, chosen, labels=_CLASSES, zero_division=0.0
    )
    return {
        name: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "support": int(support[index]),
        }
        for index, name in enumerate(CLASS_NAMES)
    }
