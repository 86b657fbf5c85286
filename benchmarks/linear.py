"""Measure the time and memory of a linear model, and of its scikit-learn pipeline.

    python benchmarks/linear.py [--json FILE] [--rounds N]

Two models: one fitted to the demo tickets, and one with 150,000 n-grams, as many as training ever
keeps, fitted to texts of 100 invented words. All candidates run in one process, in turn in every
round; figures are medians of CPU time, so that other processes matter less. Loading and memory are
measured in processes of their own. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One core, for us and for scikit-learn; read by numpy when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from sklearn.pipeline import Pipeline, make_pipeline

from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.trainers.linear.model import train
from ticket_priority.ml.types import CLASS_NAMES, LabelledText

ROOT = Path(__file__).resolve().parent.parent
TICKETS = 50
WORDS = 100
WARM_UP = 1
ROUNDS = 10
LEAST_SPEED_UP = 3.0
LEAST_PER_SECOND = 1000.0
MOST_SECONDS_TO_LOAD = 1.0
MOST_ADDED_MEGABYTES = 30.0

PROBE = """
import json, resource, sys, time
from pathlib import Path
def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
from ticket_priority.ml.serving.linear import LinearClassifier
imported = megabytes()
started = time.process_time()
classifier = LinearClassifier(Path(sys.argv[1]))
seconds = time.process_time() - started
classifier.classify(json.loads(sys.stdin.read()))
absent = ("torch", "sklearn", "scipy", "onnxruntime", "tokenizers", "django")
assert not [name for name in absent if name in sys.modules]
print(json.dumps({"load_ms": seconds * 1000, "imported_mb": imported, "serving_mb": megabytes()}))
"""


def demo_rows() -> list[LabelledText]:
    """Return the demo tickets with their labels."""
    rows = []
    for path in sorted((ROOT / "helpdesk" / "demo_tickets").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            ticket = json.loads(line)
            text = f"{ticket['subject']}\n{ticket['description']}"
            rows.append(LabelledText(text, CLASS_NAMES.index(ticket["priority"])))
    return rows


def invented_rows(count: int) -> list[LabelledText]:
    """Return texts of invented words, frequent and rare ones as in a language."""
    draw = random.Random(0)  # noqa: S311
    letters = "abcdefghijklmnopqrstuvwxyzäéñç"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(40_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [
        LabelledText(" ".join(draw.choices(words, weights, k=WORDS)), index % 3)
        for index in range(count)
    ]


def measure(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds a core was busy with each candidate, all in every round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(WARM_UP + rounds):
        for name, call in candidates.items():
            started = time.process_time()
            call()
            if round_number >= WARM_UP:
                times[name].append((time.process_time() - started) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def measure_process(directory: Path, texts: list[str], times: int) -> dict[str, float]:
    """Return the median load time, and the resident megabytes, of processes that only serve."""
    answers = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(directory)],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        answers.append(json.loads(done.stdout))
    return {name: statistics.median(answer[name] for answer in answers) for name in answers[0]}


def one_by_one(call: Callable[[list[str]], object], texts: list[str]) -> Callable[[], None]:
    def run() -> None:
        for text in texts:
            call([text])

    return run


def compare(rows: list[LabelledText], directory: Path, rounds: int) -> dict[str, Any]:
    """Fit a model to `rows`, write it, and time and weigh it on some of them."""
    model = train(rows)
    size = model.write(directory)
    pipeline: Pipeline = make_pipeline(model.features, model.regression)
    classifier = LinearClassifier(directory)
    texts = [row.text for row in random.Random(1).sample(rows, TICKETS)]  # noqa: S311
    ours = [answer.probabilities for answer in classifier.classify(texts)]
    assert abs(pipeline.predict_proba(texts) - ours).max() < 1e-5
    milliseconds = measure(
        {
            "scikit-learn, one by one": one_by_one(pipeline.predict_proba, texts),
            "scikit-learn, all at once": lambda: pipeline.predict_proba(texts),
            "LinearClassifier, one by one": one_by_one(classifier.classify, texts),
        },
        rounds,
    )
    return {
        "words": statistics.mean(len(text.split()) for text in texts),
        "ngrams": int(model.regression.coef_.shape[1]),
        "size_mb": size / 1e6,
        "tickets_per_second": {
            name: TICKETS * 1000 / value for name, value in milliseconds.items()
        },
        **measure_process(directory, texts, times=5),
    }


def run(directory: Path, rounds: int) -> dict[str, Any]:
    """Measure both models and return every figure with its verdict."""
    models: dict[str, dict[str, Any]] = {}
    for name, rows in (("demo tickets", demo_rows()), ("largest", invented_rows(5_000))):
        print(f"Fitting and timing: {name}", file=sys.stderr, flush=True)
        (directory / name).mkdir()
        models[name] = compare(rows, directory / name, rounds)
    largest = models["largest"]
    rates = largest["tickets_per_second"]
    rate = rates["LinearClassifier, one by one"]
    speed_up = rate / rates["scikit-learn, one by one"]
    added = largest["serving_mb"] - largest["imported_mb"]
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        "rounds": rounds,
        "models": models,
        "targets": {
            "speed_up_over_scikit_learn": _target(
                speed_up, LEAST_SPEED_UP, speed_up >= LEAST_SPEED_UP
            ),
            "tickets_per_second": _target(rate, LEAST_PER_SECOND, rate >= LEAST_PER_SECOND),
            "seconds_to_load": _target(
                largest["load_ms"] / 1000,
                MOST_SECONDS_TO_LOAD,
                largest["load_ms"] / 1000 <= MOST_SECONDS_TO_LOAD,
            ),
            "added_megabytes": _target(added, MOST_ADDED_MEGABYTES, added <= MOST_ADDED_MEGABYTES),
        },
    }


def _target(value: float, limit: float, passed: bool) -> dict[str, Any]:
    return {"value": round(value, 3), "limit": limit, "passed": passed}


def table(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = []
    for name, model in figures["models"].items():
        rates = model["tickets_per_second"]
        slowest = rates["scikit-learn, one by one"]
        lines += [
            f"{name}: {model['ngrams']} n-grams, {model['size_mb']:.1f} MB, "
            f"{TICKETS} tickets of {model['words']:.0f} words on average, "
            f"median of {figures['rounds']}",
            *(
                f"  {title:<30}{rate:9.0f} tickets/s of a core {rate / slowest:9.1f} x"
                for title, rate in rates.items()
            ),
            f"  loaded in {model['load_ms']:.0f} ms; a process that only serves holds "
            f"{model['serving_mb']:.0f} MB, {model['serving_mb'] - model['imported_mb']:.0f} of "
            "them for the model",
        ]
    lines += [
        "Targets (the largest model)",
        *(
            f"  {name:<30}{value['value']:9.2f}    limit {value['limit']:>6}"
            f"   {'PASS' if value['passed'] else 'FAIL'}"
            for name, value in figures["targets"].items()
        ),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = run(Path(scratch), arguments.rounds)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(target["passed"] for target in figures["targets"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
