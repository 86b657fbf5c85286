"""The road to django-q2, and what happens where it is not installed."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import Any, Final

from django.apps import apps
from django.db import connections, router

from ticket_priority.conf import get_settings
from ticket_priority.models import Prediction
from ticket_priority.outbox import drain

logger = logging.getLogger(__name__)

DRAIN_TASK: Final = "ticket_priority.tasks.drain_predictions"
SWEEP_TASK: Final = "ticket_priority.tasks.sweep"
SWEEP_NAME: Final = "ticket_priority.sweep"
SHADOW_TASK: Final = "ticket_priority.tasks.ask_shadow"
SHADOW_NAME: Final = "ticket_priority.shadow"
RETRAIN_TASK: Final = "ticket_priority.tasks.retrain"
RETRAIN_NAME: Final = "ticket_priority.retrain"

_JUST_FAILED: Final = frozenset(
    {
        Prediction.Reason.MODEL_ERROR,
        Prediction.Reason.DEADLINE,
        Prediction.Reason.OVERLOADED,
        Prediction.Reason.BREAKER_OPEN,
    }
)

_left_behind = False


def is_installed() -> bool:
    """Say whether the project runs django-q2."""
    return apps.is_installed("django_q")


def shares_database(using: str) -> bool:
    """Say whether a task is enqueued in that database, and so in a transaction on it.

    Then it appears at the commit and vanishes with a rollback, and costs no commit of its own.
    """
    if not is_installed():
        return False
    from django_q.conf import Conf

    is_orm_broker = Conf.ORM and not (Conf.BROKER_CLASS or Conf.IRON_MQ or Conf.SQS)
    return bool(is_orm_broker and using == Conf.ORM)


def enqueue_drain() -> None:
    """Enqueue the task that drains pending predictions; raises what the broker raises."""
    _enqueue(DRAIN_TASK, SWEEP_NAME)


def enqueue_shadow() -> None:
    """Enqueue the task that asks the shadow; raises what the broker raises."""
    _enqueue(SHADOW_TASK, SHADOW_NAME)


def _enqueue(task: str, name: str) -> None:
    from django_q.tasks import async_task

    async_task(task, task_name=name, broker=_broker_of(os.getpid()))


@lru_cache(maxsize=1)
def _broker_of(pid: int) -> Any:
    """Keep a process's broker: django-q2 would connect anew for each task."""
    from django_q.brokers import get_broker

    return get_broker()


def nudge() -> None:
    """Ask a worker to drain the pending predictions; without a queue, drain them here.

    A broker that is down loses nothing: the rows stay pending, and the sweep or the next nudge
    takes them. Never raises.
    """
    try:
        if is_installed():
            enqueue_drain()
        else:
            drain()
    except Exception:
        logger.exception("No worker could be told of pending tickets; the sweep will find them")


def wants_drain(prediction: Prediction) -> bool:
    """Say whether the save of a new ticket calls for a drain.

    Without a queue a drain runs in the request, so not right after the model has failed there: the
    next ticket that it answers takes along what was left behind.
    """
    global _left_behind
    if is_installed():
        return prediction.is_nudge_worthy
    if prediction.reason in _JUST_FAILED:
        _left_behind = True
        return False
    if prediction.state != Prediction.State.PENDING and _left_behind:
        _left_behind = False
        return True
    return prediction.is_nudge_worthy


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
    _ensure(SWEEP_NAME, SWEEP_TASK, Schedule.MINUTES, minutes=get_settings().sweep_minutes)
    if get_settings().retrain is None:
        Schedule.objects.filter(name=RETRAIN_NAME).delete()
    else:
        _ensure(RETRAIN_NAME, RETRAIN_TASK, Schedule.DAILY, minutes=None)


def _ensure(name: str, task: str, kind: str, *, minutes: int | None) -> None:
    from django_q.models import Schedule

    wanted = {"func": task, "schedule_type": kind, "minutes": minutes, "repeats": -1}
    Schedule.objects.update_or_create(name=name, defaults=wanted)
