"""Choose which of several fitted models to publish: one alone, or their mean."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.artifacts import transformer as transformer_config
from ticket_priority.ml.artifacts.ensemble import EnsembleConfig, Member
from ticket_priority.ml.artifacts.kinds import KINDS
from ticket_priority.ml.evaluation import calibration, metrics
from ticket_priority.ml.trainers.linear.model import LinearModel, serving_figures
from ticket_priority.ml.types import LabelledText

LINEAR: Final = "tfidf_logreg"
TRANSFORMER: Final = "transformer"
ENSEMBLE: Final = "ensemble"

LINEAR_SHARES: Final = (0.5, 0.4, 0.3, 0.2, 0.1)
"""The weights of a linear model beside transformers to choose from."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model. Its files are in the folder of its name.

    `validation` and `test` hold its probabilities [rows, classes]; `serving` its `serving` metrics.
    """

    kind: str
    validation: npt.NDArray[Any]
    test: npt.NDArray[Any]
    serving: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Members and their weights, calibrated and measured on the validation split."""

    name: str
    config: EnsembleConfig
    figures: dict[str, float]


def validation_figures(
    labels: Sequence[int], probabilities: npt.NDArray[Any], temperature: float
) -> dict[str, float]:
    """Return the figures that `TrainingConfig.monitor` may name, and the weighted kappa."""
    report = metrics.report(labels, probabilities=probabilities)
    scores = calibration.log_probabilities(probabilities) / temperature
    return {
        "val_accuracy": float(report["accuracy"]),
        "val_macro_f1": float(report["macro_f1"]),
        "val_weighted_kappa": float(report["weighted_kappa"]),
        "val_loss": calibration.cross_entropy(scores, np.asarray(labels, np.int64)),
    }


def best_of(candidates: Sequence[Candidate], monitor: str) -> Candidate:
    """Return the candidate that does best on the validation split; on a tie the first."""
    sign = -1 if monitor == "val_loss" else 1
    return max(candidates, key=lambda candidate: sign * candidate.figures[monitor])


@dataclass
class ModelSelection:
    """Fitted models, and the candidates that can be made of them.

    Their files are in `directory`; `validation` and `test` are the splits to measure on. `figures`
    say how they were fitted, ready for JSON; `best_checkpoint` is that of the first transformer.
    """

    directory: Path
    validation: Sequence[LabelledText]
    test: Sequence[LabelledText]
    linear_shares: Sequence[float] = LINEAR_SHARES
    fitted: dict[str, Fitted] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    best_checkpoint: Path | None = None

    def __post_init__(self) -> None:
        self.labels = [row.label for row in self.validation]

    def add(self, name: str, fitted: Fitted) -> None:
        """Add a model whose files are in the folder of its name."""
        self.fitted[name] = fitted

    def add_linear(
        self, model: LinearModel, validation: npt.NDArray[Any], test: npt.NDArray[Any]
    ) -> None:
        """Add a linear model with its probabilities for both splits, and write its files."""
        folder = self.directory / linear_config.KIND
        folder.mkdir(parents=True)
        serving = serving_figures(model.write(folder))
        self.add(linear_config.KIND, Fitted(linear_config.KIND, validation, test, serving))

    def candidates(self) -> list[Candidate]:
        """Return every candidate, the simplest first."""
        linear, transformers = (
            [name for name, one in self.fitted.items() if one.kind == kind]
            for kind in (linear_config.KIND, transformer_config.KIND)
        )
        found = [
            self._candidate(name, dict.fromkeys(members, 1 / len(members)))
            for name, members in ((LINEAR, linear), (TRANSFORMER, transformers))
            if members
        ]
        if linear and transformers:
            # Chosen by loss: between shares a few more right answers are chance.
            found.append(best_of(list(self._mixtures(linear, transformers)), "val_loss"))
        return found

    def report(self, candidate: Candidate) -> dict[str, Any]:
        """Return a candidate's figures on the test split."""
        answers = [self.fitted[member.folder].test for member in candidate.config.members]
        return metrics.report_on(self.test, probabilities=candidate.config.combine(answers))

    def serving(self, candidate: Candidate) -> dict[str, Any]:
        """Return the `serving` metrics of a candidate; of several members each one's too."""
        members = {
            member.folder: self.fitted[member.folder].serving for member in candidate.config.members
        }
        if len(members) == 1:
            return next(iter(members.values()))
        precisions = [figures["precision"] for figures in members.values()]
        return {
            "precision": ", ".join(dict.fromkeys(precisions)),
            "reason": f"the mean of {len(members)} models, each served as it does best",
            "size_mb": round(sum(figures["size_mb"] for figures in members.values()), 1),
            "members": members,
        }

    def write(self, candidate: Candidate, directory: Path) -> None:
        """Write all files of a candidate but metrics.json. A single model keeps its kind."""
        members = candidate.config.members
        if len(members) > 1:
            for member in members:
                shutil.copytree(self.directory / member.folder, directory / member.folder)
            candidate.config.write(directory)
            return
        shutil.copytree(self.directory / members[0].folder, directory, dirs_exist_ok=True)
        config = KINDS[members[0].kind].load_config().read(directory)
        # Log probabilities and scores differ by a constant a row, so temperatures multiply.
        temperature = config.temperature * candidate.config.temperature
        replace(config, temperature=temperature).write(directory)

    def _mixtures(self, linear: Sequence[str], transformers: Sequence[str]) -> Iterator[Candidate]:
        for share in self.linear_shares:
            weights = dict.fromkeys(linear, share / len(linear))
            weights |= dict.fromkeys(transformers, (1 - share) / len(transformers))
            yield self._candidate(ENSEMBLE, weights)

    def _candidate(self, name: str, weights: Mapping[str, float]) -> Candidate:
        members = tuple(
            Member(member, self.fitted[member].kind, weight) for member, weight in weights.items()
        )
        mean = EnsembleConfig(members).combine([self.fitted[m.folder].validation for m in members])
        scores = calibration.log_probabilities(mean)
        temperature = calibration.fit_temperature(scores, self.labels)
        config = EnsembleConfig(members, temperature)
        return Candidate(name, config, validation_figures(self.labels, mean, temperature))
