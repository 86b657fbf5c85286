"""The record of each training run. An error here never stops the run."""

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
from ticket_priority.exceptions import DatasetError, TicketPriorityError, TrainingInProgressError
from ticket_priority.models import ModelVersion, TrainingRun, plugin_database
from ticket_priority.training.lock import is_held

logger = logging.getLogger(__name__)

State, Trigger = TrainingRun.State, TrainingRun.Trigger

_BEGINS_WITHIN: Final = timedelta(minutes=5)
"""A run takes the lock within this time of its row's creation."""
_ELSEWHERE_WITHIN: Final = timedelta(days=1)
"""A run on another machine is taken to be alive for this long."""
_DIED: Final = "The process ended without a word: it was killed, or the machine went down."


@contextmanager
def recorded(pk: int | None = None) -> Iterator[Callable[[ModelVersion, str], None]]:
    """Record the training in the block; yield a function that takes its version and a remark.

    `pk` is the row that the schedule wrote for this run. Re-raises what the block raises.
    """
    settle_dead()
    run = _begun(pk)
    try:
        yield lambda version, remark: _finish(run, State.SUCCEEDED, remark, version)
    except BaseException as error:
        state, message = _verdict_on(error)
        _finish(run, state, message)
        raise


def note(state: TrainingRun.State, message: str, run: TrainingRun | None = None) -> None:
    """Record why a scheduled run was not begun; `run` is its row, where it has one."""
    _finish(run or TrainingRun(trigger=Trigger.SCHEDULE, host=_host()), state, message)


def announce(log: str) -> TrainingRun:
    """Create the row of a scheduled run before it is started; raises DatabaseError."""
    return TrainingRun.objects.using(plugin_database()).create(
        trigger=Trigger.SCHEDULE, host=_host(), log=log
    )


def set_process(run: TrainingRun, pid: int) -> None:
    """Record the process of a run, unless the process has done so itself."""
    rows = TrainingRun.objects.using(plugin_database()).filter(pk=run.pk, pid=None)
    _write(lambda: rows.update(pid=pid))


def settle_dead() -> None:
    """Mark the runs as interrupted whose process has died, unless a training may hold the lock.

    A run on another machine is taken to be dead after a day.
    """
    _write(_settle_dead)


def _settle_dead() -> None:
    rows = TrainingRun.objects.using(plugin_database()).filter(state=State.RUNNING)
    running = list(rows)
    if not running or is_held(get_settings().artifact_root) is not False:
        return
    dead = [run.pk for run in running if _is_dead(run)]
    rows.filter(pk__in=dead).update(
        state=State.INTERRUPTED, message=_DIED, finished_at=timezone.now()
    )


def _is_dead(run: TrainingRun) -> bool:
    # A start in the future was read from a clock that was ahead.
    age = abs(timezone.now() - run.started_at)
    if run.host != _host():
        return age > _ELSEWHERE_WITHIN
    # The system reuses process ids, so after a while a living process proves nothing.
    return age > _BEGINS_WITHIN or (run.pid is not None and not _is_alive(run.pid))


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        # There, signal 0 is Ctrl-C.
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _begun(pk: int | None) -> TrainingRun:
    trigger = Trigger.COMMAND if pk is None else Trigger.SCHEDULE
    run = TrainingRun(trigger=trigger, host=_host(), pid=os.getpid())

    def begin() -> None:
        nonlocal run
        rows = TrainingRun.objects.using(plugin_database())
        if pk is not None:
            run = rows.filter(pk=pk, state=State.RUNNING).first() or run
        run.host, run.pid = _host(), os.getpid()
        run.save(using=plugin_database())

    _write(begin)
    return run


def _finish(
    run: TrainingRun, state: TrainingRun.State, message: str, version: ModelVersion | None = None
) -> None:
    run.state, run.message, run.model_version = state, message, version
    run.finished_at = timezone.now()
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
            # The server may have closed the connection during hours of training; some drivers
            # raise at the close as well.
            with suppress(Error):
                connections[using].close()
        else:
            return


def _host() -> str:
    return socket.gethostname()[:255]
