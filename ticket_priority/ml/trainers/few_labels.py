"""Train on a few hundred labels: a linear probe, a linear model on words, or their mean.

Cross-validation chooses, because a validation split of some dozens of rows says little.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import StratifiedGroupKFold

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import transformer as transformer_config
from ticket_priority.ml.evaluation.calibration import fit_temperature, log_probabilities
from ticket_priority.ml.trainers.encoders.resolve import resolve
from ticket_priority.ml.trainers.export.comparison import HeldOutTexts
from ticket_priority.ml.trainers.export.onnx import Quantization, write_artifact
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.trainers.runs import hardware
from ticket_priority.ml.trainers.runs.loggers import finish, loggers
from ticket_priority.ml.trainers.selection import (
    LINEAR,
    TRANSFORMER,
    Fitted,
    ModelSelection,
    validation_figures,
)
from ticket_priority.ml.trainers.transformer import linear_probe
from ticket_priority.ml.types import CLASS_NAMES, LabelledText, ProgressCallback, TrainingConfig

Probabilities = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Fold = tuple[Rows, Rows]

_FOLDS: Final = 5


def fit(
    rows: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    run_dir: Path,
    members: Path,
    *,
    progress: ProgressCallback,
) -> ModelSelection:
    """Fit a linear probe and, with `config.ensemble`, a linear model.

    Cross-validation on `rows` chooses the C of each, and calibrates and compares the candidates;
    near-copies are in one fold. The models are fitted to all `rows`, and their files are below
    `members`. metrics.csv in `run_dir` has a line for each C tried. Raises TrainingError as
    `pipeline.fit` does.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(config.threads or hardware.usable_cores())
        return _Fit(rows, test, config, run_dir, members, progress).selection()
    finally:
        torch.set_num_threads(threads)
        finish(config)


@dataclass
class _Fit:
    """The steps of one `fit`, which share the rows and their folds."""

    rows: Sequence[LabelledText]
    test: Sequence[LabelledText]
    config: TrainingConfig
    run_dir: Path
    members: Path
    progress: ProgressCallback

    def __post_init__(self) -> None:
        self.loggers = loggers(self.config, self.run_dir)
        self.texts, self.labels, self.weights = linear.columns_of(self.rows)
        self.folds = folds_of(self.rows)
        self.trials = 0

    def selection(self) -> ModelSelection:
        """Return the fitted models."""
        started = time.monotonic()
        selection = ModelSelection(self.members, self.rows, self.test)
        self._add_linear_probe(selection)
        if self.config.ensemble:
            self._add_linear(selection)
        selection.figures = {
            "folds": len(self.folds),
            "monitor": self.config.monitor,
            "seconds": round(time.monotonic() - started, 2),
            "rows": {"train": len(self.rows), "validation": 0, "test": len(self.test)},
            "precision": "32-true",
        }
        return selection

    def _add_linear_probe(self, selection: ModelSelection) -> None:
        config = self.config
        self.progress(f"Loading the base model {config.model_name}")
        resolved = resolve(config.model_name, local_files_only=config.local_files_only)
        encoder = linear_probe.FeatureExtractor.load(resolved, config.max_length)
        self.progress(
            f"Fitting to {len(self.rows)} texts, the encoder as it is: too few to fine-tune it"
        )
        features, tested = encoder.features(self.rows), encoder.features(self.test)

        def held_out(fitted: Rows, judged: Rows, *, C: float) -> Probabilities:
            labels = [self.labels[place] for place in fitted]
            weights = None if self.weights is None else self.weights[fitted]
            head = linear_probe.fit_head(features[fitted], labels, weights, C=C)
            return linear_probe.probabilities(head, features[judged])

        C, answers = self._best(TRANSFORMER, linear_probe.C_VALUES, held_out)
        head = linear_probe.fit_head(features, self.labels, self.weights, C=C)
        serving = write_artifact(
            encoder.to_export(*linear_probe.head_of(head), config.model_name),
            self.members / TRANSFORMER,
            HeldOutTexts.of(self.test),
            Quantization.of(config),
            progress=self.progress,
        )
        fitted = linear_probe.probabilities(head, tested)
        selection.add(TRANSFORMER, Fitted(transformer_config.KIND, answers, fitted, serving))

    def _add_linear(self, selection: ModelSelection) -> None:
        def held_out(fitted: Rows, judged: Rows, *, C: float) -> Probabilities:
            chosen = [self.rows[place] for place in fitted]
            model = linear.train(chosen, C=C, weighted=True)
            return model.probabilities([self.texts[place] for place in judged])

        try:
            C, answers = self._best(LINEAR, linear.C_VALUES, held_out)
            model = linear.train(self.rows, C=C, weighted=True)
        except TrainingError as error:
            # Texts without words may still teach a transformer.
            self.progress(f"There is no linear model: {error}")
            return
        selection.add_linear(model, answers, model.probabilities([row.text for row in self.test]))

    def _best(
        self, name: str, values: Sequence[float], held_out: Callable[..., Probabilities]
    ) -> tuple[float, Probabilities]:
        """Return the best C in cross-validation, and the held-out probabilities."""
        sign = -1 if self.config.monitor == "val_loss" else 1
        found: list[tuple[float, float, Probabilities]] = []
        for C in values:
            answers = answers_held_out(self.folds, partial(held_out, C=C))
            temperature = fit_temperature(log_probabilities(answers), self.labels)
            figures = validation_figures(self.labels, answers, temperature)
            for logger in self.loggers:
                logger.log_metrics({f"{name}_C": C, **figures}, step=self.trials)
                logger.save()
            self.trials += 1
            found.append((sign * figures[self.config.monitor], C, answers))
        _, C, answers = max(found, key=lambda trial: trial[0])
        return C, answers


def folds_of(rows: Sequence[LabelledText]) -> list[Fold]:
    """Return the rows to fit to and those held out, for each fold; near-copies are in one."""
    labels, groups = [row.label for row in rows], [row.group for row in rows]
    smallest = min(Counter(labels).values())
    splitter = StratifiedGroupKFold(max(2, min(_FOLDS, smallest)), shuffle=True, random_state=0)
    named = [group or f"row {place}" for place, group in enumerate(groups)]
    return list(splitter.split(np.zeros(len(labels)), labels, named))


def answers_held_out(
    folds: Sequence[Fold], held_out: Callable[[Rows, Rows], Probabilities]
) -> Probabilities:
    """Return [rows, classes]: of each fold what `held_out(fitted, judged)` says of its rows."""
    answers = np.zeros((sum(len(judged) for _, judged in folds), len(CLASS_NAMES)))
    for fitted, judged in folds:
        answers[judged] = held_out(fitted, judged)
    return answers
