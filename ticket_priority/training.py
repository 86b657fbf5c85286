"""Use case: labelled tickets become a registered model version, and perhaps the active one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.utils import timezone
from django.utils.module_loading import import_string

from ticket_priority import artifacts, classifiers, datasets, training_lock, training_report
from ticket_priority.conf import GATE_METRICS, get_settings
from ticket_priority.diagnosis import diagnose
from ticket_priority.exceptions import (
    ArtifactError,
    DatasetError,
    TrainingError,
)
from ticket_priority.interfaces import (
    Classifier,
    LabelledText,
    ProgressCallback,
    Trainer,
    TrainingConfig,
)
from ticket_priority.models import ModelVersion
from ticket_priority.registry import all_sources
from ticket_priority.sources import TicketSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What came of a training run.

    `compared_with` is the active version's gate figure on the same test split, or None where no
    version was active or it could not be run.
    """

    version: ModelVersion
    activated: bool
    reason: str
    compared_with: float | None


def configure(**changes: Any) -> TrainingConfig:
    """Return the settings' training configuration with `changes` over it; None changes nothing.

    Raises TrainingError on an impossible value.
    """
    options = get_settings()
    given: dict[str, Any] = {
        "model_name": options.model_name,
        "output_dir": str(options.output_dir),
        **options.training,
        **{name: value for name, value in changes.items() if value is not None},
    }
    try:
        return TrainingConfig(**given)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"The training configuration is wrong: {error}.") from error


def train_model(
    config: TrainingConfig,
    *,
    sources: Sequence[TicketSource] | None = None,
    activate: str = "if-better",
    progress: ProgressCallback = logger.info,
    show_progress_bar: bool = False,
) -> TrainingOutcome:
    """Train on the tickets people labelled, publish, register, and activate by the gate.

    Raises TrainingInProgressError, DatasetError, TrainingError or ArtifactError. Whatever fails,
    and on Ctrl-C, the active version stays as it was and no version is registered.
    """
    root = get_settings().artifact_root
    with training_lock.hold(root):
        _check_settings(config)
        artifacts.sweep(root)
        fit = _load_trainer()
        progress("Reading labelled tickets")
        dataset = datasets.build(all_sources() if sources is None else sources, progress=progress)
        summary = dataset.summary()
        for line in training_report.data_lines(summary):
            progress(line)
        findings = list(diagnose(dataset, learning_curve=False).findings())
        for finding in findings:
            progress(f"Note: {finding}")
        if findings:
            progress("More about the labels: manage.py check_training_data")
        result = fit(
            dataset.train,
            dataset.validation,
            dataset.test,
            config,
            progress=progress,
            show_progress_bar=show_progress_bar,
        )
        progress("Publishing the artefact")
        artifact = artifacts.publish(result.artifact_dir, root, _free_name(root))
        outcome = _register(
            artifact,
            dataset.test,
            _split_of(summary),
            activate,
            progress,
            base_model=config.model_name,
            config=config.as_dict(),
            dataset=summary,
            run_directory=str(result.run_dir),
        )
        # Published and checked, so the staged copy is only a second half gigabyte.
        artifacts.remove(result.artifact_dir)
        return outcome


def import_model(
    directory: Path,
    *,
    sources: Sequence[TicketSource] | None = None,
    activate: str = "if-better",
    progress: ProgressCallback = logger.info,
) -> TrainingOutcome:
    """Publish an artefact that was trained elsewhere, register, and activate by the gate.

    Every file is compared with the artefact's manifest. The gate compares on the test split of
    the labelled tickets here, where there are enough, and where the active version was not
    trained on tickets that were split in another way. Raises TrainingInProgressError,
    TrainingError or ArtifactError, also for what cannot be served here; no version is registered
    then.
    """
    root = get_settings().artifact_root
    with training_lock.hold(root):
        _check_gate_metric()
        artifacts.sweep(root)
        progress(f"Verifying {directory}")
        found = artifacts.read(directory)
        progress("Reading labelled tickets to compare on")
        try:
            dataset = datasets.build(all_sources() if sources is None else sources)
            test: Sequence[LabelledText] = dataset.test
            split_by = _split_of(dataset.summary())
        except DatasetError as error:
            progress(f"Not compared: {error}")
            test, split_by = (), None
        progress("Publishing the artefact")
        artifact = artifacts.take(found, root, _free_name(root))
        _require_servable(artifact)
        run = artifact.metrics.get("training")
        config = run.get("hyperparameters") if isinstance(run, dict) else None
        config = config if isinstance(config, dict) else {}
        return _register(
            artifact,
            test,
            split_by,
            activate,
            progress,
            base_model=str(config.get("model_name", ""))[:300],
            config=config,
            dataset=artifact.dataset,
        )


def _require_servable(artifact: artifacts.Artifact) -> None:
    """Delete a published artefact that answers no text, and raise ArtifactError."""
    try:
        classifiers.build(artifact.kind, artifact.directory).classify(["A ticket."])
    except BaseException as error:
        artifacts.remove(artifact.directory)
        if not isinstance(error, Exception):
            raise
        raise ArtifactError(f"The artefact cannot be served here: {error}") from error


def _register(
    artifact: artifacts.Artifact,
    test: Sequence[LabelledText],
    split_by: str | None,
    activate: str,
    progress: ProgressCallback,
    **fields: Any,
) -> TrainingOutcome:
    """Make a model version of a published artefact, which goes again if that fails.

    `split_by` is the kind of split that `test` comes from.
    """
    name = artifact.directory.name
    try:
        progress("Comparing with the active version")
        own_split = _split_of(fields["dataset"])
        passes, reason, compared_with = _pass_gate(artifact, test, split_by, own_split, activate)
        version = ModelVersion.objects.create(
            name=name,
            kind=artifact.kind,
            directory=name,
            digest=artifact.digest,
            metrics=artifact.metrics,
            **fields,
        )
    except BaseException:
        if not ModelVersion.objects.filter(name=name).exists():
            artifacts.remove(artifact.directory)
        raise
    if passes:
        version.activate()
    return TrainingOutcome(version, passes, reason, compared_with)


def _free_name(root: Path) -> str:
    stamp = timezone.now().strftime("%Y%m%d-%H%M%S")
    name, number = stamp, 1
    while (root / name).exists() or ModelVersion.objects.filter(name=name).exists():
        number += 1
        name = f"{stamp}-{number}"
    return name


def _pass_gate(
    candidate: artifacts.Artifact,
    test: Sequence[LabelledText],
    split_by: str | None,
    own_split: str | None,
    activate: str,
) -> tuple[bool, str, float | None]:
    """Decide on activation; return the decision, why, and the active version's figure.

    Both are scored as they are served, so a candidate that cannot be served is found here, also
    where there is no `test` to compare on. `split_by` is the kind of split of `test`, `own_split`
    that of the tickets the candidate was trained on.
    """
    if activate == "never":
        return False, "activation was not asked for", None
    metric = get_settings().gate_metric
    try:
        served = classifiers.build(candidate.kind, candidate.directory)
        candidate_score = _score(served, test, metric)
    except Exception as error:
        logger.exception("The new version cannot be served")
        return False, f"the new version cannot be served: {error}", None
    active = ModelVersion.objects.active()
    if active is None:
        return True, "no version was active", None
    if not test:
        asked = activate == "always"
        how = "activation was asked for" if asked else f"{active.name} stays active"
        return asked, f"{how}: there are too few labelled tickets to compare on", None
    try:
        active_score = _score(classifiers.load(active), test, metric)
    except Exception as error:
        logger.exception("The active version %s cannot be run", active.name)
        return True, f"the active version {active.name} cannot be run: {error}", None
    known_split = _split_of(active.dataset)
    knows_test = not active.is_starter and known_split not in (split_by, own_split)
    how = "differently" if known_split in ("time", "random") else "in an unknown way"
    if knows_test and own_split != split_by and activate == "if-better":
        # Neither kept to the split of this test, so either may know more of it than the other.
        why = f"not comparable: {active.name} was trained on tickets that were split {how}"
        return False, f"{active.name} stays active: {why}", None
    figures = f"{metric} {candidate_score:.3f} against {active_score:.3f} of {active.name}"
    if activate == "always":
        return True, f"activation was asked for; {figures}", active_score
    if candidate_score >= active_score:
        return True, figures, active_score
    reason = f"{figures}, which stays active"
    if knows_test:
        reason += (
            f". Its tickets were split {how}, so it may have been trained on part of this test, "
            "which favours it. To overrule it, train with --activate=always, or run "
            f"activate_priority_model {candidate.directory.name}"
        )
    return False, reason, active_score


def _split_of(dataset: Any) -> str | None:
    """Return the kind of split that a dataset's summary names, if it names one."""
    split = dataset.get("split") if isinstance(dataset, dict) else None
    return split.get("by") if isinstance(split, dict) else None


def _score(classifier: Classifier, test: Sequence[LabelledText], metric: str) -> float:
    answers = classifier.classify([row.text for row in test] or ["A ticket."])
    if not test:
        return 0.0
    pairs = [(row.label, answer.priority) for row, answer in zip(test, answers, strict=True)]
    if metric == "accuracy":
        return sum(true == predicted for true, predicted in pairs) / len(pairs)
    return _macro_f1(pairs)


def _macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """Mean F1 of the classes that occur in the test split."""
    scores = []
    for label in {true for true, _ in pairs}:
        hits = sum(true == predicted == label for true, predicted in pairs)
        involved = sum((true == label) + (predicted == label) for true, predicted in pairs)
        scores.append(2 * hits / involved)
    return sum(scores) / len(scores)


def _load_trainer() -> Trainer:
    path = get_settings().trainer
    try:
        trainer: Trainer = import_string(path)
    except ImportError as error:
        raise TrainingError(f"The trainer {path} cannot be imported: {error}") from error
    return trainer


def _check_settings(config: TrainingConfig) -> None:
    """Find out now what would otherwise be found out after hours of training."""
    _check_gate_metric()
    _check_writable(Path(config.output_dir))


def _check_gate_metric() -> None:
    metric = get_settings().gate_metric
    if metric not in GATE_METRICS:
        raise TrainingError(
            f'TICKET_PRIORITY["GATE_METRIC"] is {metric!r}; choose {" or ".join(GATE_METRICS)}.'
        )


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
