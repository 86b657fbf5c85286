"""Train a preset on a file of labelled tickets, and measure its quality and its time.

    python benchmarks/presets.py FILE.csv [--preset NAME] [--set FIELD=VALUE ...] [--json FILE]
        [--keep DIR]

FILE has the columns subject, body, priority (low, medium or high) and split (train or val), and may
have language and group (near-copies share one). The model is trained on `train`; `val` chooses the
epoch and the candidate, and is measured on. For the calibration error the temperature is fitted
again on each half of `val` and the error measured on the other; groups are in one half. `--set`
changes a field of TrainingConfig, and may be given several times. Everything is measured as it is
served, int8 included. `--keep` leaves the artifact in DIR, for certified_tickets.py. Exits 1 when a
target is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.artifacts import ensemble as ensemble_config
from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.artifacts import transformer as transformer_config
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.evaluation.calibration import fit_temperature, log_probabilities
from ticket_priority.ml.hyperparameters import presets
from ticket_priority.ml.serving.ensemble import EnsembleClassifier
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.serving.onnx import OnnxClassifier
from ticket_priority.ml.softmax import softmax
from ticket_priority.ml.text.normalisation import normalise
from ticket_priority.ml.trainers.fit import fit
from ticket_priority.ml.types import CLASS_NAMES, Classifier, LabelledText

CLASSIFIERS = {
    transformer_config.KIND: OnnxClassifier,
    linear_config.KIND: LinearClassifier,
    ensemble_config.KIND: EnsembleClassifier,
}
LEAST_MACRO_F1 = 0.675
LEAST_WEIGHTED_KAPPA = 0.68
MOST_CALIBRATION_ERROR = 0.05
MOST_MINUTES = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--preset", default=presets.DEFAULT_PRESET, choices=list(presets.PRESETS))
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy the artifact to this folder")
    options = parser.parse_args()
    if options.keep and options.keep.exists():
        parser.error(f"{options.keep} exists already; name a folder that does not")
    splits = read_splits(options.file)
    with tempfile.TemporaryDirectory() as folder:
        changes = {"output_dir": folder} | dict(map(_setting, options.set))
        config = presets.configure(presets.EMBEDDED, options.preset, changes)
        started = time.monotonic()
        result = fit(
            splits["train"],
            splits["val"],
            splits["val"],
            config,
            progress=print,
            show_progress_bar=False,
        )
        minutes = (time.monotonic() - started) / 60
        if options.keep:
            shutil.copytree(result.artifact_dir, options.keep)
        classifier = build(result.artifact_dir)
        answers = classifier.classify([row.text for row in splits["val"]])
    probabilities = np.array([answer.probabilities for answer in answers])
    report = metrics.report_on(splits["val"], probabilities=probabilities)
    figures: dict[str, Any] = {
        "machine": f"{platform.machine()}, {config.threads or 'all'} threads",
        "preset": options.preset,
        "set": options.set,
        "rows": {name: len(rows) for name, rows in splits.items()},
        "minutes": round(minutes, 2),
        "chosen": result.metrics["training"]["chosen"],
        "accuracy": report["accuracy"],
        "macro_f1": report["macro_f1"],
        "weighted_kappa": report["weighted_kappa"],
        "high_recall": report["per_class"]["high"]["recall"],
        "calibration_error": report["calibration_error"],
        "calibration_error_on_the_other_half": _cross_fitted(splits["val"], probabilities),
        "candidates": result.metrics["training"].get("candidates", {}),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    targets = {
        f"macro F1 of at least {LEAST_MACRO_F1}": figures["macro_f1"] >= LEAST_MACRO_F1,
        f"weighted kappa of at least {LEAST_WEIGHTED_KAPPA}": figures["weighted_kappa"]
        >= LEAST_WEIGHTED_KAPPA,
        f"calibration error of at most {MOST_CALIBRATION_ERROR}": figures[
            "calibration_error_on_the_other_half"
        ]
        <= MOST_CALIBRATION_ERROR,
        f"at most {MOST_MINUTES:g} minutes": minutes <= MOST_MINUTES,
    }
    for target, is_met in targets.items():
        print(f"{'PASS' if is_met else 'FAIL'}  {target}")
    return 0 if all(targets.values()) else 1


def build(artifact: Path) -> Classifier:
    """Return the classifier of an artifact's kind."""
    kind = json.loads((artifact / "config.json").read_text())["kind"]
    classifier: Classifier = CLASSIFIERS[kind](artifact)
    return classifier


def read_splits(path: Path) -> dict[str, list[LabelledText]]:
    """Return the rows of `train` and `val`."""
    splits: dict[str, list[LabelledText]] = {"train": [], "val": []}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            splits[row["split"]].append(
                LabelledText(
                    normalise(f"{row['subject']}\n\n{row['body']}"),
                    CLASS_NAMES.index(row["priority"]),
                    group=row.get("group") or str(number),
                    language=row.get("language") or "",
                )
            )
    return splits


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _cross_fitted(rows: list[LabelledText], probabilities: npt.NDArray[np.float64]) -> float:
    """Return the calibration error of each half, calibrated on the other."""
    labels = np.array([row.label for row in rows])
    scores = log_probabilities(probabilities)
    is_first = np.array([zlib.crc32(row.group.encode()) % 2 == 0 for row in rows])
    judged = np.empty_like(probabilities)
    for half in (is_first, ~is_first):
        temperature = fit_temperature(scores[~half], labels[~half].tolist())
        judged[half] = softmax(scores[half], temperature)
    error: float = metrics.report(labels.tolist(), probabilities=judged)["calibration_error"]
    return error


if __name__ == "__main__":
    sys.exit(main())
