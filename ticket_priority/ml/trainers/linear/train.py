from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.trainers.linear.baselines import majority
from ticket_priority.ml.trainers.linear.model import Trial, choose, serving_figures
from ticket_priority.ml.trainers.runs import folders
from ticket_priority.ml.trainers.runs.splits import Splits
from ticket_priority.ml.types import (
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

    Writes `<output_dir>/YYYY-MM-DD/HH-MM-SS/`: metrics.csv with a line for each model tried, and
    artifact/, which appears only when it is complete. Only `output_dir` and `monitor` of `config`
    are used. The test split is used once, after the choice. The same rows give the same model.

    Raises TrainingError with what to do about it, and leaves no artifact then.
    """
    splits = Splits(train, validation, test)
    if config.resume_from:
        raise TrainingError("A linear model is trained in one go: there is nothing to resume.")
    with folders.new_run(Path(config.output_dir)) as run_dir:
        return _fit(splits, config, run_dir, progress)


def _fit(
    splits: Splits, config: TrainingConfig, run_dir: Path, progress: ProgressCallback
) -> TrainingResult:
    progress(f"Training on {len(splits.train)} texts, validating on {len(splits.validation)}")
    started = time.monotonic()
    tried: list[Trial] = []

    def note(trial: Trial) -> None:
        tried.append(trial)
        measured = ", ".join(f"{name} {value:.3f}" for name, value in trial.figures.items())
        progress(f"C {trial.C:g}, class weight {trial.class_weight or 'none'}: {measured}")

    best = choose(splits.train, splits.validation, config.monitor, on_trial=note)
    seconds = time.monotonic() - started
    with (run_dir / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["C", "class_weight", *best.figures])
        writer.writerows([one.C, one.class_weight or "", *one.figures.values()] for one in tried)
    answers = best.model.probabilities([row.text for row in splits.test])
    artifact_dir = run_dir / folders.ARTIFACT
    with folders.all_or_nothing(artifact_dir) as partial:
        figures: dict[str, Any] = {
            "model": metrics.report_on(splits.test, probabilities=answers),
            "majority": majority(splits.train, splits.test),
            "serving": serving_figures(best.model.write(partial)),
            "training": {
                "best_val_accuracy": best.figures["val_accuracy"],
                "best_val_macro_f1": best.figures["val_macro_f1"],
                "monitor": config.monitor,
                "seconds": round(seconds, 2),
                "rows": splits.sizes,
                "C": best.C,
                "class_weight": best.class_weight,
                "temperature": best.model.temperature,
                "hyperparameters": config.as_dict(),
            },
        }
        folders.write_metrics(partial, figures)
    return TrainingResult(artifact_dir, run_dir, None, figures)
