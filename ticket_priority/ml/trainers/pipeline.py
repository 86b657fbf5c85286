"""One training of transformers, from labelled texts to a finished artifact.

Several may be trained from as many seeds, and a linear model beside them. What the validation
split finds best is published: one of these candidates alone, or their mean.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import transformer as transformer_config
from ticket_priority.ml.trainers import few_labels
from ticket_priority.ml.trainers.distillation import soft_labels
from ticket_priority.ml.trainers.encoders.resolve import resolve
from ticket_priority.ml.trainers.linear import baselines as baseline
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.trainers.runs.checkpoints import (
    is_first_process,
    read_checkpoint,
    run_directory,
)
from ticket_priority.ml.trainers.runs.folders import all_or_nothing
from ticket_priority.ml.trainers.selection import (
    ENSEMBLE,
    LINEAR,
    TRANSFORMER,
    Candidate,
    Fitted,
    ModelSelection,
    best_of,
)
from ticket_priority.ml.trainers.transformer.finetune import TransformerRun
from ticket_priority.ml.types import (
    ArtifactFile,
    LabelledText,
    ProgressCallback,
    TrainingConfig,
    TrainingResult,
    silent,
)

_ARTIFACT: Final = "artifact"


def fit(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    *,
    progress: ProgressCallback = silent,
    show_progress_bar: bool = True,
) -> TrainingResult:
    """Train transformers, judge the best candidate on `test` and write the artifact.

    Everything lands in `<output_dir>/YYYY-MM-DD/HH-MM-SS/`: metrics.csv, hparams.yaml,
    checkpoints/ (of several seeds in a folder each), and artifact/, which appears only when it is
    complete. Epochs are counted from 1 in the metrics and from 0 in the names of checkpoints.

    `config.monitor` on the validation split chooses the best epoch of each transformer, and then
    the candidate: a transformer, the mean of several, a linear model, or the mean of these. On a
    tie the simpler candidate wins. It is calibrated on the validation split. The test split is read
    once, after all that. With fewer labels than `config.few_labels` nothing is fine-tuned, and
    cross-validation chooses the candidate: see `few_labels.fit`.

    With several devices and the strategy "auto", processes are spawned. Under a strategy that
    runs the whole program once a device, only the first writes; the others get empty metrics.

    Raises TrainingError (EncoderUnavailableError for the base model) with what to do about it,
    and KeyboardInterrupt on Ctrl-C; no artifact is left behind then.
    """
    _require_rows(train=train, validation=validation, test=test)
    resumed = read_checkpoint(config) if config.resume_from else None
    with run_directory(config) as run_dir, _members_directory(run_dir) as members:
        if resumed is None and len(train) + len(validation) < config.few_labels:
            if not is_first_process():
                return TrainingResult(run_dir / _ARTIFACT, run_dir, None)
            few = few_labels.fit(
                [*train, *validation], test, config, run_dir, members, progress=progress
            )
            return _publish(few, train, test, config, run_dir, None, progress)
        selection = ModelSelection(members, validation, test)
        # What cannot be had is known now, not when the linear models are done.
        resolve(config.model_name, local_files_only=config.local_files_only)
        words = softened = None
        if config.ensemble or config.soft_labels:
            progress("Fitting a linear model on the same split")
            words = _linear_model(train, validation, config.monitor, progress)
        if words and config.soft_labels:
            progress("Asking linear models about texts that they were not fitted to")
            softened = soft_labels(train, words, config.soft_labels)
        runs: list[dict[str, Any]] = []
        best_checkpoint = memory = None
        for name, one, folder in _transformers(config, run_dir):
            run = TransformerRun(
                one, folder, progress, show_progress_bar, resumed, memory, softened
            )
            memory = run.memory
            fitted = run.train(train, validation, test)
            if fitted is None:
                continue
            serving = run.write(fitted, members / name, test)
            selection.add(
                name, Fitted(transformer_config.KIND, fitted.validation, fitted.test, serving)
            )
            runs.append(fitted.figures)
            best_checkpoint = best_checkpoint or fitted.best_checkpoint
        if not runs:
            return TrainingResult(run_dir / _ARTIFACT, run_dir, None)
        if words and config.ensemble:
            selection.add_linear(
                words.model,
                words.model.probabilities([row.text for row in validation]),
                words.model.probabilities([row.text for row in test]),
            )
        selection.figures = runs[0] | {"seconds": round(sum(run["seconds"] for run in runs), 2)}
        return _publish(selection, train, test, config, run_dir, best_checkpoint, progress)


def _publish(
    selection: ModelSelection,
    train: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    run_dir: Path,
    best_checkpoint: Path | None,
    progress: ProgressCallback,
) -> TrainingResult:
    """Choose the candidate, judge every one on `test`, and write the artifact."""
    candidates = selection.candidates()
    best = best_of(candidates, config.monitor)
    for candidate in candidates:
        chosen = ", chosen" if candidate is best and len(candidates) > 1 else ""
        progress(f"{candidate.name}: {_describe(candidate)}{chosen}")
    progress("Fitting the baselines on the same split")
    alone = {
        candidate.name: selection.report(candidate)
        for candidate in candidates
        if candidate.name != ENSEMBLE
    }
    figures: dict[str, Any] = {
        "model": selection.report(best),
        "majority": baseline.majority(train, test),
        **(alone if len(candidates) > 1 else {}),
        "serving": selection.serving(best),
        "training": selection.figures
        | {
            "hyperparameters": config.as_dict(),
            "chosen": best.name,
            "temperature": best.config.temperature,
            "candidates": {candidate.name: candidate.figures for candidate in candidates},
        },
    }
    if LINEAR not in figures:
        figures[LINEAR] = baseline.tfidf_logreg(train, test)
    artifact_dir = run_dir / _ARTIFACT
    with all_or_nothing(artifact_dir) as partial:
        selection.write(best, partial)
        text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
        (partial / ArtifactFile.METRICS).write_text(text, encoding="utf-8")
    return TrainingResult(artifact_dir, run_dir, best_checkpoint, figures)


def _transformers(
    config: TrainingConfig, run_dir: Path
) -> Iterator[tuple[str, TrainingConfig, Path]]:
    """Yield the name, the configuration and the folder of each transformer to train."""
    if config.seeds == 1:
        yield TRANSFORMER, config, run_dir
        return
    for number in range(config.seeds):
        name = f"{TRANSFORMER}-{number + 1}"
        yield name, replace(config, seed=config.seed + number), run_dir / name


def _linear_model(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    monitor: str,
    progress: ProgressCallback,
) -> linear.Trial | None:
    try:
        return linear.choose(train, validation, monitor)
    except TrainingError as error:
        # What reads letters may still learn from texts without words.
        progress(f"There is no linear model: {error}")
        return None


def _describe(candidate: Candidate) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in candidate.figures.items())


@contextmanager
def _members_directory(run_dir: Path) -> Iterator[Path]:
    """Give a folder, yet to be made, for what may go into the artifact; it goes afterwards."""
    directory = run_dir / ".members"
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _require_rows(**splits: Sequence[LabelledText]) -> None:
    for name, rows in splits.items():
        if not rows:
            raise TrainingError(f"The {name} split is empty; training needs rows in every split.")
