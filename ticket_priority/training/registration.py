"""How a published artifact becomes a registered model version, and the active one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from ticket_priority.classifiers import build
from ticket_priority.conf import get_settings
from ticket_priority.db import identity_of
from ticket_priority.exceptions import ArtifactError, ModelAnswerError, TrainingError
from ticket_priority.ml.artifacts import store
from ticket_priority.ml.evaluation import report
from ticket_priority.ml.evaluation.scoring import Scored
from ticket_priority.ml.types import Classifier, ProgressCallback
from ticket_priority.models import ModelVersion, plugin_database
from ticket_priority.training.certify import certify_candidate
from ticket_priority.training.dataset import Dataset, split_of
from ticket_priority.training.gate import HeldOut, NewVersion, Outcome, Verdict, decide

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """The version that a training or an import registered, and the gate's verdict on it."""

    version: ModelVersion
    verdict: Verdict

    @property
    def activated(self) -> bool:
        """Whether the gate let it through."""
        return self.verdict.passes

    @property
    def artifact(self) -> Path:
        """The folder of the published artifact."""
        return get_settings().artifact_root / self.version.directory

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "model_version": self.version.name,
            "activated": self.activated,
            "reason": self.verdict.reason,
            "gate": self.verdict.as_dict(),
            "run_dir": self.version.run_directory,
            "artifact": str(self.artifact),
            "dataset": self.version.dataset,
            "metrics": self.version.metrics,
        }

    def lines(self) -> Iterator[str]:
        """Yield figures, verdict and folders as lines to print."""
        yield from report.lines(self.version.metrics)
        yield f"Model version  {self.version.name}"
        yield f"Active         {'yes' if self.activated else 'no'}: {self.verdict.reason}"
        yield f"Artifact       {self.artifact}"
        if self.version.run_directory:
            yield f"Run            {self.version.run_directory}"


@contextmanager
def to_be_registered(root: Path) -> Iterator[str]:
    """Give a free name; delete what is published under it unless it becomes a version."""
    name = _free_name(root)
    with store.provisional(root, name, owner=owner(), is_registered=is_registered):
        yield name


def owner() -> str:
    """Return whose files in ARTIFACT_ROOT are ours: those of this database."""
    return identity_of(plugin_database())


def is_registered(name: str) -> bool:
    """Say whether a version has this name."""
    # A replica may not know it yet, and what is not registered is deleted.
    return ModelVersion.objects.using(plugin_database()).filter(name=name).exists()


def register(
    artifact: store.Artifact,
    here: Dataset | None,
    activate: str,
    progress: ProgressCallback,
    **fields: Any,
) -> TrainingOutcome:
    """Make a model version of a published artifact, and let the gate decide; not yet active.

    It is scored, as it is served, and certified on the held-out splits of the labelled tickets
    `here`; None where there are too few. These figures are stored beside those of its training.
    `fields` are those of the ModelVersion. Raises TrainingError.
    """
    name = artifact.directory.name
    held_out = HeldOut() if here is None else HeldOut.of(here)
    scored, moved, error = _score_served(artifact, held_out, progress)
    metrics = certify_candidate(artifact, here, fields["dataset"], progress)
    if scored is not None:
        metrics["served"] = scored.figures(held_out.majority)
        metrics["robustness"] = moved
    if error:
        verdict = Verdict(Outcome.NOT_SERVABLE, name, error=error)
    else:
        progress("Comparing with the active version")
        verdict = decide(NewVersion(name, scored, split_of(fields["dataset"])), held_out, activate)
    fields |= {"name": name, "directory": name, "kind": artifact.kind, "digest": artifact.digest}
    version = ModelVersion(metrics=metrics, **fields)
    try:
        version.save(force_insert=True)
    except DatabaseError as failure:
        raise TrainingError(f"The version could not be registered: {failure}.") from failure
    return TrainingOutcome(version, verdict)


def activate_passing(outcome: TrainingOutcome) -> TrainingOutcome:
    """Activate a version that the gate lets through."""
    try:
        if outcome.activated:
            outcome.version.activate()
    except DatabaseError as error:
        name = outcome.version.name
        raise TrainingError(
            f"{name} was registered, but could not be activated: {error}. Try again with "
            f"`manage.py activate_priority_model {name}`."
        ) from error
    return outcome


def _score_served(
    artifact: store.Artifact, held_out: HeldOut, progress: ProgressCallback
) -> tuple[Scored | None, dict[str, Any], str]:
    """Score a published artifact as it is served, on the rows as they are and rewritten.

    The last value is the error that it met, found even where there are no rows; or "".
    """
    progress("Scoring the new version as it is served")
    try:
        classifier = build(artifact.kind, artifact.directory)
        if held_out.rows:
            scored = held_out.score(classifier)
            progress("Scoring it on rewritten tickets, for a minute or so")
            return scored, held_out.rewrite(classifier), ""
        _require_answer(classifier)
    except Exception as error:
        logger.exception("The new version cannot be served")
        return None, {}, str(error) or repr(error)
    return None, {}, ""


def require_servable(artifact: store.Artifact) -> None:
    """Raise ArtifactError where a published artifact answers no text."""
    try:
        _require_answer(build(artifact.kind, artifact.directory))
    except Exception as error:
        raise ArtifactError(f"The artifact cannot be served here: {error}") from error


def _require_answer(classifier: Classifier) -> None:
    """Raise the classifier's error, or ModelAnswerError where its answer is unusable."""
    (answer,) = classifier.classify(["A ticket."])
    if not answer.is_sound:
        raise ModelAnswerError(f"The probabilities {answer.probabilities} are none.")


def _free_name(root: Path) -> str:
    stamp = timezone.now().strftime("%Y%m%d-%H%M%S")
    names = chain([stamp], (f"{stamp}-{number}" for number in count(2)))
    return next(name for name in names if not ((root / name).exists() or is_registered(name)))
