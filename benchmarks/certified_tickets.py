"""Measure how often a certified precision does not hold on fresh tickets of a labelled file.

    python benchmarks/certified_tickets.py FILE.csv [--artifact DIR] [--target 0.7] [--json]

FILE is as for presets.py. The artifact, or else a linear model trained on the rows `train`, answers
the rows `val`. A hundred times these are split in three at random, near-copies in one part: two
parts are the validation and the test split that certify, and the third is fresh. The table counts
how often the precision of the answers that would be applied there is below the certified one, and
how often the upper end of its 95% interval is below, which happens by chance in one resample of
twenty. Exits 1 where the former happens in more than 5% of the resamples.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.presets import build, read_splits  # noqa: E402
from ticket_priority.ml.artifacts import linear as linear_config  # noqa: E402
from ticket_priority.ml.hyperparameters import presets  # noqa: E402
from ticket_priority.ml.policy.certification import ERROR_RATE, certify, lower_bound  # noqa: E402
from ticket_priority.ml.policy.rule import Certification  # noqa: E402
from ticket_priority.ml.trainers.fit import fit  # noqa: E402
from ticket_priority.ml.types import (  # noqa: E402
    CLASS_NAMES,
    Classification,
    Classifier,
    LabelledText,
)

RESAMPLES: Final = 100
PARTS: Final = 3


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--target", type=float, nargs="+", default=[0.7, 0.75, 0.8, 0.9])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    splits = read_splits(options.file)
    if options.artifact is None:
        with tempfile.TemporaryDirectory() as folder:
            model = build(_train(splits, folder))
    else:
        model = build(options.artifact)
    rows = splits["val"]
    answers = dict(
        zip((row.text for row in rows), model.classify([row.text for row in rows]), strict=True)
    )
    found = [line for target in options.target for line in _measure(target, rows, Known(answers))]
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{'target':>6} {'class':<8}{'certified':>10}{'below':>7}{'surely':>8}{'covers':>8}")
        for one in found:
            print(
                f"{one['target']:>6} {one['class']:<8}{one['certified']:>10}{one['below']:>7}"
                f"{one['surely_below']:>8}{one['covered']:>8.0%}"
            )
    return int(any(one["below"] > ERROR_RATE * RESAMPLES for one in found))


class Known:
    """Answers that were given already, by text."""

    def __init__(self, answers: dict[str, Classification]) -> None:
        self.answers = answers

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        return [self.answers[text] for text in texts]


def _train(splits: dict[str, list[LabelledText]], folder: str) -> Path:
    config = presets.configure(linear_config.KIND, "baseline", {"output_dir": folder})
    return fit(
        splits["train"], splits["val"], splits["val"], config, show_progress_bar=False
    ).artifact_dir


def _measure(
    target: float, rows: list[LabelledText], classifier: Classifier
) -> list[dict[str, Any]]:
    """Certify each class for one target, again and again, and look at the fresh part."""
    chance = np.random.default_rng(20)
    groups = sorted({row.group for row in rows})
    counts = {
        name: dict.fromkeys(("certified", "below", "surely_below", "answers", "applied"), 0)
        for name in CLASS_NAMES
    }
    for _ in range(RESAMPLES):
        part = dict(
            zip(groups, chance.permutation(np.arange(len(groups)) % PARTS).tolist(), strict=True)
        )
        validation, test, fresh = (
            [row for row in rows if part[row.group] == number] for number in range(PARTS)
        )
        found = certify(classifier, validation, test, targets=dict.fromkeys(CLASS_NAMES, target))
        for name in {certificate.priority for certificate in found.holding}:
            _count(counts[name], name, target, found, classifier, fresh)
    return [
        {
            "target": target,
            "class": name,
            "covered": each["applied"] / each["answers"] if each["answers"] else 0.0,
            **each,
        }
        for name, each in counts.items()
    ]


def _count(
    counts: dict[str, int],
    name: str,
    target: float,
    found: Certification,
    classifier: Classifier,
    fresh: list[LabelledText],
) -> None:
    answers = classifier.classify([row.text for row in fresh])
    given = [
        (answer, row) for answer, row in zip(answers, fresh, strict=True) if answer.label == name
    ]
    hits = [
        answer.priority == row.label for answer, row in given if found.covers(answer, row.language)
    ]
    counts["certified"] += 1
    counts["answers"] += len(given)
    counts["applied"] += len(hits)
    if not hits:
        return
    counts["below"] += sum(hits) < target * len(hits)
    at_most = 1 - float(lower_bound(len(hits) - sum(hits), len(hits)))
    counts["surely_below"] += at_most < target


if __name__ == "__main__":
    sys.exit(main())
