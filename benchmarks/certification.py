"""Measure how often a certified precision does not hold, where true probabilities are known.

Run: .venv/bin/python benchmarks/certification.py [--resamples 5000] [--rows 100 300 1000] [--json]

Answers of one class have confidences drawn evenly from 0.4 to 1. A "world" is a function from an
answer's confidence to the probability that it is right, so the true precision above a threshold is
known. In at most 5% of the resamples a certificate may be wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ticket_priority.ml.policy.certification import (  # noqa: E402
    ERROR_RATE,
    Answers,
    certificates_of,
)

Floats = npt.NDArray[np.float64]
World = Callable[[Floats], Floats]

TARGET: Final = 0.8
LEAST_CONFIDENCE: Final = 0.4
WORLDS: Final[dict[str, World]] = {
    "just below": lambda confidence: np.full_like(confidence, TARGET - 0.001),
    "calibrated": lambda confidence: confidence,
    "overconfident": lambda confidence: confidence - 0.12,
    "underconfident": lambda confidence: np.minimum(1.0, confidence + 0.12),
    "upside down": lambda confidence: 1.19 - 0.5 * confidence,
    "a bad middle": lambda confidence: np.where(np.abs(confidence - 0.7) < 0.1, 0.5, 0.9),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamples", type=int, default=5_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 300, 1_000])
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = [
        _measure(name, rows, arguments.resamples, arguments.seed)
        for name in WORLDS
        for rows in arguments.rows
    ]
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        print(
            f"{'world':<16}{'answers':>9}{'certified':>11}{'wrongly':>9}{'covers':>8}{'could':>7}"
        )
        for one in figures:
            print(
                f"{one['world']:<16}{one['rows']:>9}{one['certified']:>11.1%}"
                f"{one['wrong']:>9.2%}{one['coverage']:>8.0%}{one['possible_coverage']:>7.0%}"
            )
    return int(any(one["wrong"] > ERROR_RATE for one in figures))


def _measure(name: str, rows: int, resamples: int, seed: int) -> dict[str, Any]:
    """Certify many times over; `rows` answers are in the validation and in the test split each."""
    chance, world = np.random.default_rng(seed), WORLDS[name]
    certified = wrong = 0
    coverage = 0.0
    for _ in range(resamples):
        (found,) = certificates_of(
            "high", TARGET, _sample(chance, rows, world), _sample(chance, rows, world)
        )
        if found.holds and found.threshold is not None:
            certified += 1
            coverage += found.coverage
            wrong += _precision(found.threshold, world) < TARGET
    return {
        "world": name,
        "rows": rows,
        "certified": certified / resamples,
        "wrong": wrong / resamples,
        "coverage": coverage / certified if certified else 0.0,
        "possible_coverage": _possible_coverage(world),
    }


def _sample(chance: np.random.Generator, rows: int, world: World) -> Answers:
    confidence = chance.uniform(LEAST_CONFIDENCE, 1, rows)
    return Answers(
        chosen=np.full(rows, 2, dtype=np.int8),
        confidence=confidence,
        is_right=chance.random(rows) < world(confidence),
        languages=np.full(rows, ""),
    )


def _precision(threshold: float, world: World) -> float:
    return float(world(np.linspace(max(threshold, LEAST_CONFIDENCE), 1, 2001)).mean())


def _possible_coverage(world: World) -> float:
    """Return the share above the lowest threshold that truly reaches the target."""
    for threshold in np.linspace(LEAST_CONFIDENCE, 1, 601):
        if _precision(float(threshold), world) >= TARGET:
            return float((1 - threshold) / (1 - LEAST_CONFIDENCE))
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
