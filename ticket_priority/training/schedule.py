"""Use case: start a scheduled training when there are enough new labels.

It runs in a process of its own: a queue's worker is a daemon with a time limit, and a training
takes hours.
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
from ticket_priority.training import history
from ticket_priority.training.labels import labels_since
from ticket_priority.training.lock import is_held

logger = logging.getLogger(__name__)

LOGS: Final = "retraining"
"""The folder below OUTPUT_DIR with the output of the runs."""

_EARLY: Final = timedelta(hours=12)
"""How much sooner a run may start, so that a daily check does not miss it by minutes."""

# Referenced until they end, so that they are reaped and do not stay zombies.
_children: list[subprocess.Popen[bytes]] = []


def retrain() -> str:
    """Start a training run if `RETRAIN` asks for one now; return what was done, or why nothing.

    Called daily. A run that was due and refused is recorded too, and the next is due `every_days`
    later.
    """
    try:
        plan = get_settings().training.retraining
    except (TypeError, ValueError) as error:
        return f"Not begun: RETRAIN is wrong: {error}."
    if plan is None:
        return "Not begun: RETRAIN is not set."
    history.settle_dead()
    if reason := _why_not_yet(plan):
        return f"Not begun: {reason}"
    if reason := _why_refused(plan):
        history.note(TrainingRun.State.REFUSED, f"Not begun: {reason}")
        return f"Not begun: {reason}"
    return _start(plan)


def count_new_labels() -> tuple[int, ModelVersion | None]:
    """Count the labels since the newest version was trained, by `labels_since`; return both.

    Starters are not counted as trained; without a trained version all labels count. Raises
    SourceError where there is no source.
    """
    version = ModelVersion.objects.using(plugin_database()).newest_trained()
    since = None if version is None else version.created_at
    return sum(labels_since(source, since) for source in find_sources()), version


def _why_not_yet(plan: Retraining) -> str:
    runs = TrainingRun.objects.using(plugin_database())
    last = runs.filter(trigger=TrainingRun.Trigger.SCHEDULE).first()
    # Also where the clock was ahead when it began.
    if last is None or abs(timezone.now() - last.started_at) > timedelta(plan.every_days) - _EARLY:
        return ""
    return (
        f"the last scheduled run is of {last.started_at:%Y-%m-%d %H:%M}, and RETRAIN asks for one "
        f"every {plan.every_days} days."
    )


def _why_refused(plan: Retraining) -> str:
    if is_held(get_settings().artifact_root):
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
    _children[:] = [child for child in _children if child.poll() is None]
    run = None
    try:
        log = _log_file()
        run = history.announce(str(log))
        options = (
            f"--run={run.pk}",
            f"--activate={plan.activate}",
            f"--timeout-minutes={plan.timeout_minutes}",
        )
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603
                [*_manage(), "train_priority_model", *options, "--no-color"],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except (OSError, DatabaseError) as error:
        logger.exception("A scheduled training could not be begun")
        message = f"The training could not be begun: {error}"
        history.note(TrainingRun.State.FAILED, message, run)
        return message
    _children.append(child)
    history.set_process(run, child.pid)
    return f"Begun in process {child.pid}; it prints to {log}."


def _log_file() -> Path:
    folder = get_settings().output_dir.absolute() / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    stamp = timezone.now().strftime("%Y%m%d-%H%M%S")
    log = folder / f"{stamp}-{os.getpid()}.log"
    log.touch()
    return log


def _manage() -> list[str]:
    """Return the command line prefix of this project's commands: its manage.py, or Django's."""
    for path in (Path(sys.argv[0]), base_dir() / "manage.py"):
        if path.name == "manage.py" and path.is_file():
            return [sys.executable, str(path.absolute())]
    return [sys.executable, "-m", "django"]


def _environment() -> Mapping[str, str]:
    found = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if module := getattr(settings, "SETTINGS_MODULE", None):
        found["DJANGO_SETTINGS_MODULE"] = module
    if len(_manage()) > 2:
        # The settings module must be importable as it is here.
        found["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return found
