"""Use case: when enough labels have come in, a training run is begun by the clock.

The run is a process of its own: a worker of the queue is a daemon with a time limit, and a
training takes hours.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from ticket_priority.conf import Retraining, base_dir, get_settings
from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.models import ModelVersion, TrainingRun, plugin_database
from ticket_priority.sources.registry import find_sources
from ticket_priority.training import history as training_runs
from ticket_priority.training import lock as training_lock
from ticket_priority.training.labels import labels_since

logger = logging.getLogger(__name__)

LOGS: Final = "retraining"
"""The folder below OUTPUT_DIR that holds what the runs print."""

_EARLY: Final = timedelta(hours=12)
"""How much sooner than asked for a run may come, so that a daily look does not slip by a day."""

# Kept until they end, so that the system does not keep them as zombies.
_children: list[subprocess.Popen[bytes]] = []


def retrain() -> str:
    """Begin a training run if `RETRAIN` asks for one now; return what was done, or why nothing was.

    Looked at daily. A run that was due and was not begun is written down like one that was, and
    the next is due `every_days` later.
    """
    try:
        plan = get_settings().training.retraining
    except (TypeError, ValueError) as error:
        return f"Not begun: RETRAIN is wrong: {error}."
    if plan is None:
        return "Not begun: RETRAIN is not set."
    training_runs.settle_dead()
    if reason := _why_not_yet(plan):
        return f"Not begun: {reason}"
    if reason := _why_refused(plan):
        training_runs.note(
            TrainingRun.Trigger.SCHEDULE, TrainingRun.State.REFUSED, f"Not begun: {reason}"
        )
        return f"Not begun: {reason}"
    return _start(plan)


def count_new_labels() -> tuple[int, ModelVersion | None]:
    """Count the labels that came in since the newest version was trained, and name the version.

    Of each source, the tickets that `labels_since` counts. A starter is no such version;
    where there is none, all labels count. Raises SourceError where there is no source.
    """
    version = ModelVersion.objects.using(plugin_database()).newest_trained()
    since = None if version is None else version.created_at
    return sum(labels_since(source, since) for source in find_sources()), version


def _why_not_yet(plan: Retraining) -> str:
    runs = TrainingRun.objects.using(plugin_database())
    last = runs.filter(trigger=TrainingRun.Trigger.SCHEDULE).first()
    if last is None or timezone.now() - last.started_at > timedelta(plan.every_days) - _EARLY:
        return ""
    return (
        f"the last scheduled run is of {last.started_at:%Y-%m-%d %H:%M}, and RETRAIN asks for one "
        f"every {plan.every_days} days."
    )


def _why_refused(plan: Retraining) -> str:
    if training_lock.is_held(get_settings().artifact_root):
        return "another training is running."
    try:
        number, version = count_new_labels()
    except TicketPriorityError as error:
        return str(error)
    if number >= plan.min_new_labels:
        return ""
    since = "there are" if version is None else f"since {version.name} was trained there are"
    return f"{since} {number} new labels, and RETRAIN asks for {plan.min_new_labels}."


def _start(plan: Retraining) -> str:
    try:
        log = _log_file()
        run = training_runs.announce(str(log))
    except (OSError, DatabaseError) as error:
        logger.exception("A scheduled training could not be begun")
        message = f"The training could not be begun: {error}"
        training_runs.note(TrainingRun.Trigger.SCHEDULE, TrainingRun.State.FAILED, message)
        return message
    command = [
        *_manage(),
        "train_priority_model",
        f"--run={run.pk}",
        f"--activate={plan.activate}",
        f"--timeout-minutes={plan.timeout_minutes}",
        "--no-color",
    ]
    _children[:] = [child for child in _children if child.poll() is None]
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603
                command,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        logger.exception("A scheduled training could not be begun")
        message = f"The training could not be begun: {error}"
        training_runs.fail(run, message)
        return message
    _children.append(child)
    training_runs.set_process(run, child.pid)
    return f"Begun in process {child.pid}; it prints to {log}."


def _log_file() -> Path:
    folder = get_settings().output_dir.absolute() / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    stamp = timezone.now().strftime("%Y%m%d-%H%M%S")
    log = folder / f"{stamp}-{os.getpid()}.log"
    log.touch()
    return log


def _manage() -> list[str]:
    """Return how this project's commands are run: by its manage.py, where it has one."""
    for path in (Path(sys.argv[0]), base_dir() / "manage.py"):
        if path.name == "manage.py" and path.is_file():
            return [sys.executable, str(path.absolute())]
    return [sys.executable, "-m", "django"]


def _environment() -> Mapping[str, str]:
    found = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if module := getattr(settings, "SETTINGS_MODULE", None):
        found["DJANGO_SETTINGS_MODULE"] = module
    if len(_manage()) > 2:
        # What this process can import, the settings can.
        found["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return found
