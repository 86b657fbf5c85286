"""One training run of a linear model, from labelled texts to a finished artifact."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.trainers.linear import baselines as baseline
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.trainers.runs.folders import all_or_nothing, new_run
from ticket_priority.ml.types import (
    ArtifactFile,
    LabelledText,
    ProgressCallback,
    TrainingConfig,
    TrainingResult,
    silent,
)


def fit(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    *,
    progress: ProgressCallback = silent,
    show_progress_bar: bool = True,
) -> TrainingResult:
    """Train a linear model, choose it on `validation`, score it on `test`, write the artifact.

    Everything lands in `<output_dir>/YYYY-MM-DD/HH-MM-SS/`: metrics.csv with a line for each model
    tried, and artifact/, which appears only when it is complete. Of `config` only `output_dir` and
    `monitor` are read. The test split is read once, after the model was chosen. The same rows give
    the same model.

    Raises TrainingError with what to do about it; no artifact is left behind then.
    """
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        if not rows:
            raise TrainingError(f"The {name} split is empty; training needs rows in every split.")
    if config.resume_from:
        raise TrainingError("A linear model is trained in one go: there is nothing to resume.")
    with new_run(Path(config.output_dir)) as run_dir:
        return _fit(train, validation, test, config, run_dir, progress)


def _fit(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    run_dir: Path,
    progress: ProgressCallback,
) -> TrainingResult:
    progress(f"Training on {len(train)} texts, validating on {len(validation)}")
    started = time.monotonic()
    tried: list[linear.Trial] = []

    def note(trial: linear.Trial) -> None:
        tried.append(trial)
        progress(_describe(trial))

    best = linear.choose(train, validation, config.monitor, on_trial=note)
    seconds = time.monotonic() - started
    _write_trials(run_dir / "metrics.csv", tried)
    answers = best.model.probabilities([row.text for row in test])
    report = metrics.report_on(test, probabilities=answers)
    artifact_dir = run_dir / "artifact"
    with all_or_nothing(artifact_dir) as partial:
        size = best.model.write(partial)
        figures: dict[str, Any] = {
            "model": report,
            "majority": baseline.majority(train, test),
            "serving": linear.serving_figures(size),
            "training": {
                "best_val_accuracy": best.figures["val_accuracy"],
                "best_val_macro_f1": best.figures["val_macro_f1"],
                "monitor": config.monitor,
                "seconds": round(seconds, 2),
                "rows": {"train": len(train), "validation": len(validation), "test": len(test)},
                "C": best.C,
                "class_weight": best.class_weight,
                "temperature": best.model.temperature,
                "hyperparameters": config.as_dict(),
            },
        }
        text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
        (partial / ArtifactFile.METRICS).write_text(text, encoding="utf-8")
    return TrainingResult(artifact_dir, run_dir, None, figures)


def _describe(trial: linear.Trial) -> str:
    figures = ", ".join(f"{name} {value:.3f}" for name, value in trial.figures.items())
    return f"C {trial.C:g}, class weight {trial.class_weight or 'none'}: {figures}"


def _write_trials(path: Path, trials: Sequence[linear.Trial]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["C", "class_weight", *trials[0].figures])
        for trial in trials:
            writer.writerow([trial.C, trial.class_weight or "", *trial.figures.values()])
