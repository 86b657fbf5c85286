"""Use case: labelled tickets become a registered model version, and perhaps the active one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.utils.module_loading import import_string

from ticket_priority.conf import get_settings
from ticket_priority.db import reopen
from ticket_priority.exceptions import ArtifactError, TicketPriorityError, TrainingError
from ticket_priority.ml.artifacts import store
from ticket_priority.ml.evaluation.report import data_lines
from ticket_priority.ml.hyperparameters import presets
from ticket_priority.ml.types import ArtifactFile, ProgressCallback, Trainer, TrainingConfig
from ticket_priority.models import plugin_database
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import all_sources
from ticket_priority.training import registration
from ticket_priority.training.dataset import build
from ticket_priority.training.diagnosis import diagnose
from ticket_priority.training.gate import check_gate_settings
from ticket_priority.training.lock import hold

logger = logging.getLogger(__name__)


def configure(preset: str | None = None, **changes: Any) -> TrainingConfig:
    """Return the settings' training configuration with `changes` over it; None changes nothing.

    `preset` names the preset to start from, else the settings do. Raises TrainingError on an
    impossible value.
    """
    training = get_settings().training
    changes = {name: value for name, value in changes.items() if value is not None}
    preset, output = preset or training.preset, {"output_dir": str(get_settings().output_dir)}
    try:
        return presets.configure(
            training.model_name, preset, output, training.hyperparameters, changes
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
) -> registration.TrainingOutcome:
    """Train on the tickets people labelled, publish, register, and activate by the gate.

    `using` is the database alias of the tickets, None: where their model's router reads. Raises
    TrainingInProgressError, DatasetError, TrainingError or ArtifactError. On any error, and on
    Ctrl-C, the active version stays as it was and no version is registered.
    """
    root = get_settings().artifact_root
    with hold(root):
        # Now, and not after hours of training.
        check_gate_settings()
        _check_writable(Path(config.output_dir))
        store.sweep(root, owner=registration.owner(), is_registered=registration.is_registered)
        fit = _load_trainer()
        progress("Reading labelled tickets")
        chosen = all_sources() if sources is None else sources
        dataset = build(chosen, using=using, progress=progress)
        summary = dataset.summary()
        for line in data_lines(summary):
            progress(line)
        findings = list(diagnose(dataset, learning_curve=False).findings())
        for finding in findings:
            progress(f"Note: {finding}")
        if findings:
            progress("More about the labels: manage.py check_training_data")
        try:
            splits = dataset.train, dataset.validation, dataset.test
            result = fit(*splits, config, progress=progress, show_progress_bar=show_progress_bar)
        except OSError as error:
            # A trainer of the project's own may raise it as it is.
            raise TrainingError(f"The training stopped: {error}.") from error
        # The server may have closed the connection during hours of training.
        reopen(plugin_database())
        progress("Publishing the artifact")
        with _kept(result.artifact_dir, summary), registration.to_be_registered(root) as name:
            outcome = registration.register(
                store.publish(result.artifact_dir, root, name, owner=registration.owner()),
                dataset,
                activate,
                progress,
                base_model=config.model_name,
                config=config.as_dict(),
                dataset=summary,
                run_directory=str(result.run_dir),
            )
        store.remove(result.artifact_dir)
        return registration.activate_passing(outcome)


@contextmanager
def _kept(directory: Path, dataset: dict[str, Any]) -> Iterator[None]:
    """On an error, seal what was trained, so that it can be imported, and say where it is."""
    try:
        yield
    except TicketPriorityError as error:
        where = f"What was trained is in {directory}"
        with suppress(OSError, ArtifactError):
            text = json.dumps(dataset, indent=2) + "\n"
            (directory / ArtifactFile.DATASET).write_text(text, encoding="utf-8")
            store.seal(directory)
            where += f": bring it in with `manage.py import_priority_model {directory}`"
        raise type(error)(f"{error} {where}.") from error


def _load_trainer() -> Trainer:
    path = get_settings().training.trainer
    try:
        trainer: Trainer = import_string(path)
    except ImportError as error:
        raise TrainingError(f"The trainer {path} cannot be imported: {error}") from error
    return trainer


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
