"""Use case: a person or a monitor reads the status. No row is written and no model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final

from django.db.models import Q
from django.utils import timezone

from ticket_priority.conf import get_settings
from ticket_priority.exceptions import QueueError
from ticket_priority.ml.artifacts.store import is_published
from ticket_priority.models import ModelVersion, Prediction, TrainingRun
from ticket_priority.predictions import kill_switch
from ticket_priority.predictions.kill_switch import SwitchState
from ticket_priority.predictions.workers import SWEEP_NAME
from ticket_priority.queues import get_queue
from ticket_priority.queues.base import Workers
from ticket_priority.reports import backlog
from ticket_priority.reports.backlog import Backlog
from ticket_priority.sources.registry import all_sources

logger = logging.getLogger(__name__)

_Reason, _Run = Prediction.Reason, TrainingRun

_RUN_FIELDS: Final = ("state", "trigger", "started_at", "finished_at", "message")
_MODEL_FAILS: Final = (_Reason.MODEL_ERROR, _Reason.BREAKER_OPEN)
_SWEEP_GRACE: Final = timedelta(minutes=2)
"""How late a sweep may be: a queue looks at its schedules about twice a minute."""


class Level(IntEnum):
    """How bad a finding is. The values are the exit codes of monitoring plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Seconds from which on, or within which, something is a finding; 0: never.

    `max_age` and `critical_age` are ages of the oldest pending ticket. Tickets that wait because
    the model fails are reported while the newest is younger than `max_age`; tickets that were given
    up, while the last is younger than `failed_within`.
    """

    max_age: float = 300
    critical_age: float = 3600
    failed_within: float = 86_400


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """A model version; `error` says why it cannot serve, as far as files and rows can tell."""

    name: str
    since: datetime | None
    is_starter: bool
    error: str


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue; `installed` says whether it has workers, `error` why it cannot be used.

    `next_sweep_at` is None where the sweep is not scheduled.
    """

    installed: bool
    workers: Workers
    next_sweep_at: datetime | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How classification stands at a time. `modes` maps each source to its mode.

    `training_run` has the fields `_RUN_FIELDS` of the newest run; None: there was none.
    """

    at: datetime
    active: VersionStatus | None
    shadow: VersionStatus | None
    switch: SwitchState
    modes: Mapping[str, str]
    backlog: Backlog
    queue: QueueStatus
    training_run: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should look at."""

    level: Level
    says: str


def read() -> Status:
    """Read the status: five queries, and one look for workers.

    The circuit breaker and the loaded model belong to each process, so they are not part of it.
    Raises DatabaseError.
    """
    chosen = ModelVersion.objects.filter(Q(is_active=True) | Q(is_shadow=True))
    versions = list(chosen.defer("config", "dataset"))
    return Status(
        at=timezone.now(),
        active=next((_version(one, one.activated_at) for one in versions if one.is_active), None),
        shadow=next((_version(one, one.shadow_since) for one in versions if one.is_shadow), None),
        switch=kill_switch.read(),
        modes={source.label: source.effective_mode for source in all_sources()},
        backlog=backlog.read(),
        queue=_queue(),
        training_run=_Run.objects.values(*_RUN_FIELDS).first(),
    )


def findings(status: Status, thresholds: Thresholds) -> list[Finding]:
    """Return what is wrong, the worst first."""
    found = [
        *_of_versions(status),
        *_of_switch(status),
        *_of_backlog(status, thresholds),
        *_of_queue(status),
        *_of_training(status),
    ]
    return sorted(found, key=lambda finding: -finding.level)


def _version(version: ModelVersion, since: datetime | None) -> VersionStatus:
    error = version.load_error
    directory = get_settings().artifact_root / version.directory
    if not error and not is_published(directory):
        error = f"There is no artifact at {directory}."
    return VersionStatus(version.name, since, version.is_starter, error)


def _queue() -> QueueStatus:
    try:
        queue = get_queue()
    except QueueError as error:
        return QueueStatus(False, Workers.UNKNOWN, None, str(error))
    try:
        workers = queue.workers()
    except Exception:
        # The status must be readable while a broker or a cache is down.
        logger.exception("The queue's broker cannot be asked for its workers")
        workers = Workers.UNKNOWN
    return QueueStatus(not queue.runs_in_process, workers, queue.next_run_at(SWEEP_NAME))


def _of_versions(status: Status) -> Iterator[Finding]:
    active, shadow = status.active, status.shadow
    if active is None:
        says = "No model version is active: manage.py activate_priority_model NAME, or --starter."
        yield Finding(Level.CRITICAL, says)
    elif active.error:
        says = f"The active version {active.name} cannot be loaded: {active.error}"
        yield Finding(Level.CRITICAL, says)
    if shadow is not None and shadow.error:
        yield Finding(Level.WARNING, f"The shadow {shadow.name} fails: {shadow.error}")


def _of_switch(status: Status) -> Iterator[Finding]:
    state = status.switch
    if state.on:
        return
    why = state.reason if state.enabled else 'TICKET_PRIORITY["ENABLED"] is False.'
    yield Finding(Level.WARNING, "Classification is switched off" + (f": {why}" if why else "."))


def _of_backlog(status: Status, thresholds: Thresholds) -> Iterator[Finding]:
    waiting = status.backlog
    if waiting.oldest_at is not None and status.switch.on:
        # While classification is switched off, tickets are meant to wait.
        age = (status.at - waiting.oldest_at).total_seconds()
        says = f"{waiting.count} tickets wait, the oldest for {age:.0f} s."
        if 0 < thresholds.critical_age <= age:
            yield Finding(Level.CRITICAL, says)
        elif 0 < thresholds.max_age <= age:
            yield Finding(Level.WARNING, says)
    for reason in _MODEL_FAILS:
        group = waiting.waiting.get(reason)
        if group is not None and _is_within(status, group.newest_at, thresholds.max_age):
            says = f"{group.count} tickets wait as the model fails ({reason}); the log says why."
            yield Finding(Level.WARNING, says)
    if _is_within(status, waiting.last_failed_at, thresholds.failed_within):
        yield Finding(
            Level.WARNING,
            f"{waiting.failed} tickets were given up: the admin's action on the predictions in "
            "state failed tries them again.",
        )


def _is_within(status: Status, at: datetime | None, seconds: float) -> bool:
    return at is not None and (status.at - at).total_seconds() < seconds


def _of_queue(status: Status) -> Iterator[Finding]:
    deferred = [label for label, mode in status.modes.items() if mode != "sync"]
    queue = status.queue
    if queue.error:
        yield Finding(Level.CRITICAL, f"The queue cannot be used: {queue.error}")
        return
    if not queue.installed:
        if deferred:
            says = f"{', '.join(deferred)}: the mode needs a queue with workers."
            yield Finding(Level.WARNING, says)
        return
    command = get_queue().worker_command
    if queue.workers is Workers.ABSENT:
        yield Finding(Level.WARNING, f"No worker runs: {command}.")
    if queue.next_sweep_at is None:
        yield Finding(Level.WARNING, "The sweep is not scheduled: manage.py migrate.")
    elif status.at - queue.next_sweep_at > _SWEEP_GRACE:
        due = queue.next_sweep_at.isoformat(timespec="seconds")
        says = f"The sweep was due at {due}: no worker runs ({command}), or none that has time."
        yield Finding(Level.WARNING, says)


def _of_training(status: Status) -> Iterator[Finding]:
    run = status.training_run
    if run is None or run["trigger"] != _Run.Trigger.SCHEDULE:
        return
    if run["state"] in (_Run.State.FAILED, _Run.State.INTERRUPTED):
        says = f"The last training by the clock {run['state']}: {run['message']}"
        yield Finding(Level.WARNING, says)
