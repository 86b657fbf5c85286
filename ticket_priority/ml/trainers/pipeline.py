"""Train transformers, from labelled texts to a finished artifact."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import transformer as transformer_config
from ticket_priority.ml.trainers import few_labels
from ticket_priority.ml.trainers.distillation import soft_labels
from ticket_priority.ml.trainers.encoders.resolve import resolve
from ticket_priority.ml.trainers.linear.baselines import majority, tfidf_logreg
from ticket_priority.ml.trainers.linear.model import Trial, choose
from ticket_priority.ml.trainers.runs import checkpoints, folders
from ticket_priority.ml.trainers.runs.splits import Splits
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
    """Train transformers, measure the best candidate on `test` and write the artifact.

    Writes `<output_dir>/YYYY-MM-DD/HH-MM-SS/`: metrics.csv, hparams.yaml, checkpoints/ (in a
    folder for each seed where there are several), and artifact/, which appears only when it is
    complete. Epochs are counted from 1 in the metrics and from 0 in the names of checkpoints.

    `config.monitor` on the validation split chooses the best epoch of each transformer, and then
    the candidate: a transformer, the mean of several, a linear model, or the mean of these. On a
    tie the simpler candidate wins. It is calibrated on the validation split. The test split is used
    once, after all that. With fewer labels than `config.few_labels` nothing is fine-tuned, and
    cross-validation chooses the candidate: see `few_labels.fit`.

    With several devices and the strategy "auto", processes are spawned. Under a strategy that
    runs the whole program on each device, only the first process writes; the others get empty
    metrics.

    Raises TrainingError (EncoderUnavailableError for the base model) with what to do about it,
    and KeyboardInterrupt on Ctrl-C; no artifact is left behind then.
    """
    splits = Splits(train, validation, test)
    resumed = checkpoints.read_checkpoint(config) if config.resume_from else None
    is_small = resumed is None and len(train) + len(validation) < config.few_labels
    with checkpoints.run_directory(config) as run_dir:
        run = _Run(splits, config, run_dir, run_dir / ".members", progress, show_progress_bar)
        try:
            return run.publish(run.fit_to_few_labels() if is_small else run.fine_tune(resumed))
        finally:
            shutil.rmtree(run.members, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Run:
    """The steps of one `fit`. Files of the fitted models are below `members`, not made yet."""

    splits: Splits
    config: TrainingConfig
    run_dir: Path
    members: Path
    progress: ProgressCallback
    show_progress_bar: bool

    def fit_to_few_labels(self) -> ModelSelection | None:
        """Fit a linear probe and a linear model; None in any process but the first."""
        if not checkpoints.is_first_process():
            return None
        rows = [*self.splits.train, *self.splits.validation]
        return few_labels.fit(
            rows, self.splits.test, self.config, self.run_dir, self.members, progress=self.progress
        )

    def fine_tune(self, resumed: dict[str, Any] | None) -> ModelSelection | None:
        """Fit transformers and a linear model; None in any process but the first."""
        # A base model that cannot be found is reported before linear models are fitted.
        resolve(self.config.model_name, local_files_only=self.config.local_files_only)
        linear = self._fit_linear_model()
        selection = ModelSelection(self.members, self.splits.validation, self.splits.test)
        self._train_transformers(selection, linear, resumed)
        if not selection.fitted:
            return None
        if linear and self.config.ensemble:
            selection.add_linear(
                linear.model,
                linear.model.probabilities([row.text for row in self.splits.validation]),
                linear.model.probabilities([row.text for row in self.splits.test]),
            )
        return selection

    def publish(self, selection: ModelSelection | None) -> TrainingResult:
        """Choose a candidate, measure all of them on the test split, and write the artifact."""
        artifact_dir = self.run_dir / folders.ARTIFACT
        if selection is None:
            return TrainingResult(artifact_dir, self.run_dir, None)
        candidates = selection.candidates()
        best = best_of(candidates, self.config.monitor)
        for candidate in candidates:
            measured = ", ".join(f"{name} {of:.3f}" for name, of in candidate.figures.items())
            chosen = ", chosen" if candidate is best and len(candidates) > 1 else ""
            self.progress(f"{candidate.name}: {measured}{chosen}")
        self.progress("Fitting the baselines on the same split")
        figures = self._figures(selection, candidates, best)
        with folders.all_or_nothing(artifact_dir) as partial:
            selection.write(best, partial)
            folders.write_metrics(partial, figures)
        return TrainingResult(artifact_dir, self.run_dir, selection.best_checkpoint, figures)

    def _fit_linear_model(self) -> Trial | None:
        if not (self.config.ensemble or self.config.soft_labels):
            return None
        self.progress("Fitting a linear model on the same split")
        try:
            return choose(self.splits.train, self.splits.validation, self.config.monitor)
        except TrainingError as error:
            # Texts without words may still teach a transformer.
            self.progress(f"There is no linear model: {error}")
            return None

    def _train_transformers(
        self, selection: ModelSelection, linear: Trial | None, resumed: dict[str, Any] | None
    ) -> None:
        """Add a transformer for each seed; nothing in any process but the first."""
        softened = cache = None
        if linear and self.config.soft_labels:
            self.progress("Asking linear models about texts that they were not fitted to")
            softened = soft_labels(self.splits.train, linear, self.config.soft_labels)
        seconds = 0.0
        for name, config, folder in self._transformers():
            run = TransformerRun(
                config, folder, self.progress, self.show_progress_bar, resumed, cache, softened
            )
            cache = run.activation_cache
            fitted = run.train(self.splits)
            if fitted is None:
                continue
            serving = run.write(fitted, self.members / name, self.splits.test)
            selection.add(
                name, Fitted(transformer_config.KIND, fitted.validation, fitted.test, serving)
            )
            seconds += fitted.figures["seconds"]
            # The figures are the first seed's, but for the time.
            selection.figures = (selection.figures or fitted.figures) | {
                "seconds": round(seconds, 2)
            }
            selection.best_checkpoint = selection.best_checkpoint or fitted.best_checkpoint

    def _transformers(self) -> Iterator[tuple[str, TrainingConfig, Path]]:
        """Yield the name, the configuration and the folder of each transformer to train."""
        if self.config.seeds == 1:
            yield TRANSFORMER, self.config, self.run_dir
            return
        for number in range(self.config.seeds):
            name = f"{TRANSFORMER}-{number + 1}"
            yield name, replace(self.config, seed=self.config.seed + number), self.run_dir / name

    def _figures(
        self, selection: ModelSelection, candidates: Sequence[Candidate], best: Candidate
    ) -> dict[str, Any]:
        """Return what metrics.json holds."""
        train, test = self.splits.train, self.splits.test
        alone = {one.name: selection.report(one) for one in candidates if one.name != ENSEMBLE}
        figures: dict[str, Any] = {
            "model": selection.report(best),
            "majority": majority(train, test),
            **(alone if len(candidates) > 1 else {}),
            "serving": selection.serving(best),
            "training": selection.figures
            | {
                "hyperparameters": self.config.as_dict(),
                "chosen": best.name,
                "temperature": best.config.temperature,
                "candidates": {candidate.name: candidate.figures for candidate in candidates},
            },
        }
        if LINEAR not in figures:
            figures[LINEAR] = tfidf_logreg(train, test)
        return figures
