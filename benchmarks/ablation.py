"""Measure each hyperparameter of the preset `production` on a file of labelled tickets.

    python benchmarks/ablation.py FILE.csv [--rows NAME ...] [--seeds 1 2 3] [--jobs N]
        [--json FILE]

FILE is as for presets.py. The preset is trained as it is and with one thing changed at a time, each
from several seeds, on the rows `train`; `val` chooses the epoch and is measured on. It prints the
means over the seeds, before int8, of the transformers alone and of their mean with the linear
model, the latter with its standard deviation over the seeds. `--jobs` is the number of runs at the
same time. A run takes a quarter of an hour on two cores, so use a machine with a GPU. `--json`
writes every run, and skips those that FILE has already.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.presets import read_splits  # noqa: E402
from ticket_priority.ml.hyperparameters import presets  # noqa: E402
from ticket_priority.ml.trainers.fit import fit  # noqa: E402
from ticket_priority.ml.trainers.runs import hardware  # noqa: E402

ROWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "production": {},
    "no soft labels": {"soft_labels": 0.0},
    "no ordinal loss": {"ordinal_loss": 0.0},
    "ordinal smoothing 0.1": {"ordinal_smoothing": 0.1},
    "classes as they are": {"class_weight": None},
    "one rate for all layers": {"layer_decay": 1.0},
    "2 layers train": {"trainable_layers": 2},
    "all layers train": {"trainable_layers": None},
    "half the learning rate": {"learning_rate": 1.5e-4},
    "constant learning rate": {"lr_scheduler": None},
    "the encoder's dropout": {"attention_dropout": None, "hidden_dropout": None},
    "batches of 32": {"batch_size": 32},
    "3 epochs": {"max_epochs": 3},
    "8 epochs": {"max_epochs": 8},
    "128 tokens": {"max_length": 128},
    "512 tokens": {"max_length": 512},
    "3 models": {"seeds": 3},
    "512 tokens, 3 models: best": presets.PRESETS["best"],
    "float32": {"precision": "32-true"},
}
MODELS: Final = ("transformer", "ensemble")
FIGURES: Final = ("val_macro_f1", "val_weighted_kappa", "val_loss")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if options.json and options.json.exists():
        runs = json.loads(options.json.read_text(encoding="utf-8"))
    done = {(run["row"], run["seed"]) for run in runs}
    threads = max(1, hardware.usable_cores() // options.jobs)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        begun = [
            pool.submit(train_row, options.file, row, seed, threads)
            for row in options.rows
            for seed in options.seeds
            if (row, seed) not in done
        ]
        for finished in as_completed(begun):
            runs.append(finished.result())
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    print_table([run for run in runs if run["row"] in options.rows])
    return 0


def train_row(file: Path, row: str, seed: int, threads: int) -> dict[str, Any]:
    """Train one row from one seed; return the figures of its candidates, and the minutes."""
    splits = read_splits(file)
    with tempfile.TemporaryDirectory() as folder:
        changes = {"output_dir": folder, "quantize": False, "seed": seed, "threads": threads}
        config = presets.configure(presets.EMBEDDED, "production", changes, ROWS[row])
        started = time.monotonic()
        result = fit(splits["train"], splits["val"], splits["val"], config, show_progress_bar=False)
        minutes = (time.monotonic() - started) / 60
    candidates = result.metrics["training"]["candidates"]
    return {"row": row, "seed": seed, "minutes": round(minutes, 2)} | {
        model: {name: candidates[model][name] for name in FIGURES} for model in MODELS
    }


def print_table(runs: list[dict[str, Any]]) -> None:
    """Print a Markdown table, a row a change."""
    print("| | seeds | alone: macro F1 | kappa | log loss ", end="")
    print("| with the linear model: macro F1 | kappa | log loss |\n" + "| --- " * 8 + "|")
    for row in ROWS:
        if not (of_row := [run for run in runs if run["row"] == row]):
            continue
        cells = [row, str(len(of_row))]
        for model in MODELS:
            for name in FIGURES:
                values = [run[model][name] for run in of_row]
                cells.append(f"{statistics.mean(values):.3f}")
                if model == "ensemble" and len(values) > 1:
                    cells[-1] += f" ± {statistics.stdev(values):.3f}"
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
