"""Use case: labelled tickets become a registered model version, and perhaps the active one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import DatabaseError
from django.utils import timezone
from django.utils.module_loading import import_string

from ticket_priority import classifiers
from ticket_priority.conf import get_settings
from ticket_priority.db import reopen
from ticket_priority.exceptions import (
    ArtifactError,
    DatasetError,
    ModelAnswerError,
    TicketPriorityError,
    TrainingError,
)
from ticket_priority.ml.artifacts import store as artifacts
from ticket_priority.ml.evaluation import report as training_report
from ticket_priority.ml.evaluation.scoring import Scored
from ticket_priority.ml.hyperparameters import presets
from ticket_priority.ml.types import (
    ArtifactFile,
    Classifier,
    ProgressCallback,
    Trainer,
    TrainingConfig,
)
from ticket_priority.models import ModelVersion, plugin_database
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import all_sources
from ticket_priority.training import dataset as datasets
from ticket_priority.training import lock as training_lock
from ticket_priority.training.certify import certify_candidate
from ticket_priority.training.diagnosis import diagnose
from ticket_priority.training.gate import Candidate, Decision, HeldOut, check_gate_settings, decide

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What came of a training run.

    `compared_with` is the active version's gate figure on the same test split, or None where no
    version was active or it could not be run; `decision` has every comparison.
    """

    version: ModelVersion
    decision: Decision

    @property
    def activated(self) -> bool:
        return self.decision.passes

    @property
    def reason(self) -> str:
        return self.decision.reason

    @property
    def compared_with(self) -> float | None:
        return self.decision.compared_with

    @property
    def artifact(self) -> Path:
        """Where the published artifact lies."""
        return get_settings().artifact_root / self.version.directory

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "model_version": self.version.name,
            "activated": self.activated,
            "reason": self.reason,
            "gate": self.decision.as_dict(),
            "run_dir": self.version.run_directory,
            "artifact": str(self.artifact),
            "dataset": self.version.dataset,
            "metrics": self.version.metrics,
        }

    def lines(self) -> Iterator[str]:
        """Say what came of it, for a terminal."""
        yield from training_report.lines(self.version.metrics)
        yield f"Model version  {self.version.name}"
        yield f"Active         {'yes' if self.activated else 'no'}: {self.reason}"
        yield f"Artifact       {self.artifact}"
        if self.version.run_directory:
            yield f"Run            {self.version.run_directory}"


def configure(preset: str | None = None, **changes: Any) -> TrainingConfig:
    """Return the settings' training configuration with `changes` over it; None changes nothing.

    `preset` names the preset to start from, else the settings do. Raises TrainingError on an
    impossible value.
    """
    options = get_settings()
    training = options.training
    changes = {name: value for name, value in changes.items() if value is not None}
    output = {"output_dir": str(options.output_dir)}
    try:
        return presets.configure(
            training.model_name,
            preset or training.preset,
            output,
            training.hyperparameters,
            changes,
        )
    except (TypeError, ValueError) as error:
        raise TrainingError(f"The training configuration is wrong: {error}.") from error


def train_model(
    config: TrainingConfig,
    *,
    sources: Sequence[TicketSource] | None = None,
    activate: str = "if-better",
    using: str | None = None,
    progress: ProgressCallback = logger.info,
    show_progress_bar: bool = False,
) -> TrainingOutcome:
    """Train on the tickets people labelled, publish, register, and activate by the gate.

    `using` is the database alias of the tickets, None: where their model's router reads. Raises
    TrainingInProgressError, DatasetError, TrainingError or ArtifactError. Whatever fails, and on
    Ctrl-C, the active version stays as it was and no version is registered.
    """
    root = get_settings().artifact_root
    with training_lock.hold(root):
        _check_settings(config)
        artifacts.sweep(root, is_registered=_is_registered)
        fit = _load_trainer()
        progress("Reading labelled tickets")
        chosen = all_sources() if sources is None else sources
        dataset = datasets.build(chosen, using=using, progress=progress)
        summary = dataset.summary()
        for line in training_report.data_lines(summary):
            progress(line)
        findings = list(diagnose(dataset, learning_curve=False).findings())
        for finding in findings:
            progress(f"Note: {finding}")
        if findings:
            progress("More about the labels: manage.py check_training_data")
        try:
            result = fit(
                dataset.train,
                dataset.validation,
                dataset.test,
                config,
                progress=progress,
                show_progress_bar=show_progress_bar,
            )
        except OSError as error:
            # What trains turns it into a TrainingError, unless it is the project's own.
            raise TrainingError(f"The training stopped: {error}.") from error
        # In all these hours a server may have closed the connection.
        reopen(plugin_database())
        progress("Publishing the artifact")
        with _kept(result.artifact_dir, summary), _to_be_registered(root) as name:
            outcome = _register(
                artifacts.publish(result.artifact_dir, root, name),
                dataset,
                activate,
                progress,
                base_model=config.model_name,
                config=config.as_dict(),
                dataset=summary,
                run_directory=str(result.run_dir),
            )
        # Published and checked, so the staged copy is only a second half gigabyte.
        artifacts.remove(result.artifact_dir)
        return _activate(outcome)


def import_model(
    directory: Path,
    *,
    sources: Sequence[TicketSource] | None = None,
    activate: str = "if-better",
    using: str | None = None,
    progress: ProgressCallback = logger.info,
) -> TrainingOutcome:
    """Publish an artifact that was trained elsewhere, register, and activate by the gate.

    Every file is compared with the artifact's manifest. The gate compares on the test split of
    the labelled tickets here, where there are enough, and where the active version was not
    trained on tickets that were split in another way. `using` is as in `train_model`. Raises
    TrainingInProgressError, TrainingError or ArtifactError, also for what cannot be served here; no
    version is registered then.
    """
    root = get_settings().artifact_root
    with training_lock.hold(root):
        check_gate_settings()
        artifacts.sweep(root, is_registered=_is_registered)
        progress(f"Verifying {directory}")
        found = artifacts.read(directory)
        progress("Reading labelled tickets to compare on")
        dataset: datasets.Dataset | None = None
        try:
            dataset = datasets.build(all_sources() if sources is None else sources, using=using)
        except DatasetError as error:
            progress(f"Not compared: {error}")
        run = found.metrics.get("training")
        config = run.get("hyperparameters") if isinstance(run, dict) else None
        config = config if isinstance(config, dict) else {}
        progress("Publishing the artifact")
        with _to_be_registered(root) as name:
            artifact = artifacts.take(found, root, name)
            _require_servable(artifact)
            outcome = _register(
                artifact,
                dataset,
                activate,
                progress,
                base_model=str(config.get("model_name", ""))[:300],
                config=config,
                dataset=artifact.dataset,
            )
        return _activate(outcome)


@contextmanager
def _to_be_registered(root: Path) -> Iterator[str]:
    """Give a free name; what is published under it goes again unless it becomes a version."""
    name = _free_name(root)
    with artifacts.provisional(root, name, is_registered=_is_registered):
        yield name


def _is_registered(name: str) -> bool:
    # Not from a replica, which may not know it yet: what is not registered is deleted.
    return ModelVersion.objects.using(plugin_database()).filter(name=name).exists()


@contextmanager
def _kept(directory: Path, dataset: dict[str, Any]) -> Iterator[None]:
    """Make what was trained fit for an import where it cannot be published, and say so."""
    try:
        yield
    except TicketPriorityError as error:
        where = f"What was trained is in {directory}"
        with suppress(OSError, ArtifactError):
            text = json.dumps(dataset, indent=2) + "\n"
            (directory / ArtifactFile.DATASET).write_text(text, encoding="utf-8")
            artifacts.seal(directory)
            where += f": bring it in with `manage.py import_priority_model {directory}`"
        raise type(error)(f"{error} {where}.") from error


def _require_servable(artifact: artifacts.Artifact) -> None:
    """Raise ArtifactError where an artifact answers no text."""
    try:
        _require_answer(classifiers.build(artifact.kind, artifact.directory))
    except Exception as error:
        raise ArtifactError(f"The artifact cannot be served here: {error}") from error


def _require_answer(classifier: Classifier) -> None:
    """Raise what a classifier raises at a text, or ModelAnswerError where that is no answer."""
    (answer,) = classifier.classify(["A ticket."])
    if not answer.is_sound:
        raise ModelAnswerError(f"The probabilities {answer.probabilities} are none.")


def _register(
    artifact: artifacts.Artifact,
    here: datasets.Dataset | None,
    activate: str,
    progress: ProgressCallback,
    **fields: Any,
) -> TrainingOutcome:
    """Make a model version of a published artifact, and have the gate judge it.

    It is scored, as it is served, and certified on what is held out of the labelled tickets
    `here`, where there are enough; its figures are kept beside those of its training.
    """
    name = artifact.directory.name
    held_out = HeldOut() if here is None else HeldOut.of(here)
    scored, moved, error = _score_served(artifact, held_out, progress)
    metrics = certify_candidate(artifact, here, fields["dataset"], progress)
    if scored is not None:
        metrics["served"] = scored.figures(held_out.majority)
        metrics["robustness"] = moved
    if error:
        decision = Decision(False, f"the new version cannot be served: {error}")
    else:
        progress("Comparing with the active version")
        candidate = Candidate(name, scored, datasets.split_of(fields["dataset"]))
        decision = decide(candidate, held_out, activate)
    version = ModelVersion(
        name=name,
        kind=artifact.kind,
        directory=name,
        digest=artifact.digest,
        metrics=metrics,
        **fields,
    )
    try:
        version.save(force_insert=True)
    except DatabaseError as failure:
        raise TrainingError(f"The version could not be registered: {failure}.") from failure
    return TrainingOutcome(version, decision)


def _activate(outcome: TrainingOutcome) -> TrainingOutcome:
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


def _free_name(root: Path) -> str:
    stamp = timezone.now().strftime("%Y%m%d-%H%M%S")
    name, number = stamp, 1
    while (root / name).exists() or _is_registered(name):
        number += 1
        name = f"{stamp}-{number}"
    return name


def _score_served(
    artifact: artifacts.Artifact, held_out: HeldOut, progress: ProgressCallback
) -> tuple[Scored | None, dict[str, Any], str]:
    """Score a published artifact as it is served, on rows as they are and rewritten.

    Or return the error that it met. What cannot be served is found also where there is no row to
    score it on.
    """
    progress("Scoring the new version as it is served")
    try:
        classifier = classifiers.build(artifact.kind, artifact.directory)
        if held_out.rows:
            scored = held_out.score(classifier)
            progress("Scoring it on rewritten tickets, for a minute or so")
            return scored, held_out.rewrite(classifier), ""
        _require_answer(classifier)
    except Exception as error:
        logger.exception("The new version cannot be served")
        return None, {}, str(error) or repr(error)
    return None, {}, ""


def _load_trainer() -> Trainer:
    path = get_settings().training.trainer
    try:
        trainer: Trainer = import_string(path)
    except ImportError as error:
        raise TrainingError(f"The trainer {path} cannot be imported: {error}") from error
    return trainer


def _check_settings(config: TrainingConfig) -> None:
    """Find out now what would otherwise be found out after hours of training."""
    check_gate_settings()
    _check_writable(Path(config.output_dir))


def _check_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".write-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TrainingError(
            f"The output directory {directory} cannot be written: {error.strerror}. Pass "
            '--output-dir, or set TICKET_PRIORITY["OUTPUT_DIR"].'
        ) from error
