"""What is written down of each training run. Whatever goes wrong here, the run goes on."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

from django.db import Error, connections, transaction
from django.utils import timezone

from ticket_priority.conf import get_settings
from ticket_priority.exceptions import (
    DatasetError,
    TicketPriorityError,
    TrainingInProgressError,
)
from ticket_priority.models import ModelVersion, TrainingRun, plugin_database
from ticket_priority.training import lock as training_lock

logger = logging.getLogger(__name__)

State, Trigger = TrainingRun.State, TrainingRun.Trigger

_BEGINS_WITHIN: Final = timedelta(minutes=5)
"""How long after its row was written a run may not hold the lock yet."""
_ELSEWHERE_WITHIN: Final = timedelta(days=1)
"""How long the row of a run on another machine is believed."""
_DIED: Final = "The process ended without a word: it was killed, or the machine went down."


@contextmanager
def recorded(pk: int | None = None) -> Iterator[Callable[[ModelVersion, str], None]]:
    """Write down how the training in the block goes; hands out what takes its version and remark.

    `pk` is the row that the schedule wrote for this run. What the block raises is raised on.
    """
    settle_dead()
    run = _begun(pk)
    try:
        yield lambda version, remark: _finish(run, State.SUCCEEDED, remark, version)
    except BaseException as error:
        state, message = _verdict_on(error)
        _finish(run, state, message)
        raise


def note(trigger: TrainingRun.Trigger, state: TrainingRun.State, message: str) -> None:
    """Write down why a run was not begun."""
    now = timezone.now()
    run = TrainingRun(
        trigger=trigger, state=state, message=message, host=_host(), finished_at=now, started_at=now
    )
    _write(run.save)


def announce(log: str) -> TrainingRun:
    """Write a row for a scheduled run that is about to be started; raises DatabaseError."""
    return TrainingRun.objects.using(plugin_database()).create(
        trigger=Trigger.SCHEDULE, host=_host(), log=log
    )


def set_process(run: TrainingRun, pid: int) -> None:
    """Write down in which process a run was started, unless that has done so itself."""
    rows = TrainingRun.objects.using(plugin_database()).filter(pk=run.pk, pid=None)
    _write(lambda: rows.update(pid=pid))


def fail(run: TrainingRun, message: str) -> None:
    """Write down that a run could not be started."""
    _finish(run, State.FAILED, message)


def settle_dead() -> None:
    """Call the runs interrupted whose process is gone, where no training holds the lock.

    Known is what happened on this machine; a run elsewhere is given a day.
    """
    _write(_settle_dead)


def _settle_dead() -> None:
    rows = TrainingRun.objects.using(plugin_database()).filter(state=State.RUNNING)
    running = list(rows)
    if not running or training_lock.is_held(get_settings().artifact_root):
        return
    dead = [run.pk for run in running if _is_dead(run)]
    rows.filter(pk__in=dead).update(
        state=State.INTERRUPTED, message=_DIED, finished_at=timezone.now()
    )


def _is_dead(run: TrainingRun) -> bool:
    age = timezone.now() - run.started_at
    if run.host != _host():
        return age > _ELSEWHERE_WITHIN
    # A number is given to another process before long, so an old one proves nothing.
    return age > _BEGINS_WITHIN or (run.pid is not None and not _is_alive(run.pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _begun(pk: int | None) -> TrainingRun:
    run = TrainingRun(trigger=Trigger.COMMAND, host=_host(), pid=os.getpid())

    def begin() -> None:
        nonlocal run
        rows = TrainingRun.objects.using(plugin_database())
        found = rows.filter(pk=pk, state=State.RUNNING).first() if pk is not None else None
        if found is not None:
            found.host, found.pid = run.host, run.pid
            run = found
        elif pk is not None:
            run.trigger = Trigger.SCHEDULE
        run.save(using=plugin_database())

    _write(begin)
    return run


def _finish(
    run: TrainingRun, state: TrainingRun.State, message: str, version: ModelVersion | None = None
) -> None:
    run.state, run.message, run.finished_at = state, message, timezone.now()
    run.model_version = version
    _write(lambda: run.save(using=plugin_database()))


def _verdict_on(error: BaseException) -> tuple[TrainingRun.State, str]:
    if isinstance(error, KeyboardInterrupt):
        return State.INTERRUPTED, "It was stopped."
    if isinstance(error, TrainingInProgressError | DatasetError):
        return State.REFUSED, str(error)
    if isinstance(error, TicketPriorityError):
        return State.FAILED, str(error)
    return State.FAILED, f"{type(error).__name__}: {error}"


def _write(write: Callable[[], object]) -> None:
    using = plugin_database()
    for is_last in (False, True):
        try:
            with transaction.atomic(using=using):
                write()
        except Exception:
            if is_last or connections[using].in_atomic_block:
                logger.warning("A training run could not be written down", exc_info=True)
                return
            # After hours of training the server may have closed the connection, of which a driver
            # may complain once more.
            with suppress(Error):
                connections[using].close()
        else:
            return


def _host() -> str:
    return socket.gethostname()[:255]
