"""The road to django-q2, and what happens where it is not installed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any, Final

from django.apps import apps
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connections, router

from ticket_priority.bounded_calls import Pool
from ticket_priority.conf import get_settings
from ticket_priority.db import after_commit
from ticket_priority.exceptions import ModelOverloadedError, ModelTimeoutError
from ticket_priority.models import Prediction, plugin_database
from ticket_priority.predictions.outbox import drain

logger = logging.getLogger(__name__)

DRAIN_TASK: Final = "ticket_priority.tasks.drain_predictions"
SWEEP_TASK: Final = "ticket_priority.tasks.sweep"
SWEEP_NAME: Final = "ticket_priority.sweep"
SHADOW_TASK: Final = "ticket_priority.tasks.ask_shadow"
SHADOW_NAME: Final = "ticket_priority.predictions.shadow"
RETRAIN_TASK: Final = "ticket_priority.tasks.retrain"
RETRAIN_NAME: Final = "ticket_priority.retrain"

BROKER_SECONDS: Final = 1.0
"""How long a request waits for a broker to take a task."""
BROKER_REST_SECONDS: Final = 30.0
"""How long a broker that did not is left alone."""

_JUST_FAILED: Final = frozenset(
    {
        Prediction.Reason.MODEL_ERROR,
        Prediction.Reason.DEADLINE,
        Prediction.Reason.OVERLOADED,
        Prediction.Reason.BREAKER_OPEN,
    }
)

_SEEN_BY_FEW: Final = (DummyCache, LocMemCache, FileBasedCache)
"""Caches in which a worker may leave a sign of life that another process or machine misses."""

_left_behind = False


class Workers(StrEnum):
    """alive: a cluster gave a sign of life in the last seconds. absent: none did.

    unknown: whatever they do, this process could not see it.
    """

    ALIVE = "alive"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What django-q2 makes of `Q_CLUSTER`. Seconds, kilobytes and counts; None or 0: no limit.

    `repeats` says whether the broker hands a task out again that nobody acknowledged.
    """

    timeout: float | None
    retry: float
    repeats: bool
    max_attempts: int
    acknowledges_failures: bool
    recycle: int | None
    max_rss: int | None
    is_sync: bool
    tasks_ahead: float


def worker_settings() -> WorkerSettings | None:
    """Return django-q2's settings, or None where it is not installed."""
    if not is_installed():
        return None
    from django_q.conf import Conf

    return WorkerSettings(
        timeout=Conf.TIMEOUT,
        retry=Conf.RETRY,
        # Where none is named the broker is Redis, which takes a task off the list for good.
        repeats=bool(Conf.BROKER_CLASS or Conf.IRON_MQ or Conf.SQS or Conf.ORM or Conf.MONGO),
        max_attempts=Conf.MAX_ATTEMPTS,
        acknowledges_failures=bool(Conf.ACK_FAILURES),
        recycle=Conf.RECYCLE,
        max_rss=Conf.MAX_RSS,
        is_sync=bool(Conf.SYNC),
        tasks_ahead=Conf.QUEUE_LIMIT / int(Conf.WORKERS) + 2,
    )


def workers() -> Workers:
    """Say whether a cluster runs, as far as its broker can tell. Raises what the broker raises.

    django-q2 leaves its signs of life in Redis where that is the broker, else in the cache. A
    broker that keeps silent is waited for as in `notify_workers`, and raises ModelTimeoutError.
    """
    if not is_installed():
        return Workers.UNKNOWN
    from django_q.brokers import Broker
    from django_q.status import Stat

    broker = _broker_of(os.getpid())
    tells_by_cache = type(broker).get_stats is Broker.get_stats
    if tells_by_cache:
        # It may be a table, which only the thread whose connection is looked after may ask.
        found = Stat.get_all(broker)
    else:
        pool = _messenger_of(os.getpid()).pool
        found = pool.call(partial(Stat.get_all, broker), BROKER_SECONDS)
    if found:
        return Workers.ALIVE
    if tells_by_cache and (broker.cache is None or isinstance(broker.cache, _SEEN_BY_FEW)):
        return Workers.UNKNOWN
    return Workers.ABSENT


def next_sweep() -> datetime | None:
    """Return when pending predictions are swept up next; None: the schedule is not there."""
    if not is_installed():
        return None
    from django_q.models import Schedule

    runs = Schedule.objects.filter(name=SWEEP_NAME).values_list("next_run", flat=True)
    found: datetime | None = runs.first()
    return found


def is_installed() -> bool:
    """Say whether the project runs django-q2."""
    return apps.is_installed("django_q")


def shares_database(using: str) -> bool:
    """Say whether a task is enqueued in that database, and so in a transaction on it.

    Then it appears at the commit and vanishes with a rollback, and costs no commit of its own.
    """
    return using == _broker_database()


def _broker_database() -> str | None:
    """Return the alias of the database that is the broker; None: it is none, or none is there."""
    if not is_installed():
        return None
    from django_q.conf import Conf

    if Conf.BROKER_CLASS or Conf.IRON_MQ or Conf.SQS:
        return None
    return Conf.ORM or None


def enqueue_drain() -> None:
    """Enqueue the task that drains pending predictions; raises what the broker raises."""
    _enqueue(DRAIN_TASK, SWEEP_NAME)


def enqueue_shadow() -> None:
    """Enqueue the task that asks the shadow; raises what the broker raises."""
    _enqueue(SHADOW_TASK, SHADOW_NAME)


def _enqueue(task: str, name: str) -> None:
    from django_q.tasks import async_task

    async_task(task, task_name=name, broker=_broker_of(os.getpid()))


class _Messenger:
    """Takes tasks to a broker that is no database of the project's, and waits only so long.

    Its client may wait for ever, and a save would with it.
    """

    def __init__(self) -> None:
        self.pool = Pool()
        self.rests_until = 0.0

    def send(self, enqueue: Callable[[], None]) -> None:
        """Enqueue, unless the broker did not answer a moment ago; raises what the broker raises."""
        if time.monotonic() < self.rests_until:
            return
        try:
            self.pool.call(enqueue, BROKER_SECONDS)
        except (ModelTimeoutError, ModelOverloadedError):
            self.rests_until = time.monotonic() + BROKER_REST_SECONDS
            logger.error(
                "The broker does not answer: for %g s no worker is told, and the sweep finds what "
                "waits",
                BROKER_REST_SECONDS,
            )


@lru_cache(maxsize=1)
def _messenger_of(pid: int) -> _Messenger:
    """Keep a process's messenger: its threads survive no fork."""
    return _Messenger()


@lru_cache(maxsize=1)
def _broker_of(pid: int) -> Any:
    """Keep a process's broker: django-q2 would connect anew for each task."""
    from django_q.brokers import get_broker

    return get_broker()


def notify_workers() -> None:
    """Ask a worker to drain the pending predictions; without a queue, drain them here.

    A broker that is down, or does not answer within `BROKER_SECONDS`, loses nothing: the rows stay
    pending, and the sweep or the next notify_workers takes them. Never raises.
    """
    try:
        if not is_installed():
            drain()
        elif _broker_database() is not None or _is_sync():
            enqueue_drain()
        else:
            _messenger_of(os.getpid()).send(enqueue_drain)
    except Exception:
        logger.exception("No worker could be told of pending tickets; the sweep will find them")


def _is_sync() -> bool:
    settings = worker_settings()
    return settings is not None and settings.is_sync


def wake_workers() -> bool:
    """Have what waits worked off after the commit; return whether there is a queue to do it."""
    if not is_installed():
        return False
    after_commit(notify_workers, using=plugin_database())
    return True


def wants_drain(prediction: Prediction) -> bool:
    """Say whether the save of a new ticket calls for a drain.

    Without a queue a drain runs in the request, so not right after the model has failed there: the
    next ticket that it answers takes along what was left behind.
    """
    global _left_behind
    if is_installed():
        return prediction.needs_worker
    if prediction.reason in _JUST_FAILED:
        _left_behind = True
        return False
    if prediction.state != Prediction.State.PENDING and _left_behind:
        _left_behind = False
        return True
    return prediction.needs_worker


def ensure_schedules(using: str) -> None:
    """Bring the schedules in line with the settings, where their table is.

    One sweeps up pending predictions. The other looks daily whether a training run is due; it is
    there only with `RETRAIN`.
    """
    if not is_installed():
        return
    from django_q.models import Schedule

    if using != router.db_for_write(Schedule):
        return
    if Schedule._meta.db_table not in connections[using].introspection.table_names():
        return
    _ensure(SWEEP_NAME, SWEEP_TASK, Schedule.MINUTES, minutes=get_settings().queue.sweep_minutes)
    if get_settings().training.retrain is None:
        Schedule.objects.filter(name=RETRAIN_NAME).delete()
    else:
        _ensure(RETRAIN_NAME, RETRAIN_TASK, Schedule.DAILY, minutes=None)


def _ensure(name: str, task: str, kind: str, *, minutes: int | None) -> None:
    from django_q.models import Schedule

    wanted = {"func": task, "schedule_type": kind, "minutes": minutes, "repeats": -1}
    Schedule.objects.update_or_create(name=name, defaults=wanted)
