"""The road to django-q2, and what happens where it is not installed."""

from __future__ import annotations

import logging
from typing import Final

from django.apps import apps
from django.db import connections, router

from ticket_priority.conf import get_settings
from ticket_priority.outbox import drain

logger = logging.getLogger(__name__)

DRAIN_TASK: Final = "ticket_priority.tasks.drain_predictions"
SWEEP_NAME: Final = "ticket_priority.sweep"


def is_installed() -> bool:
    """Say whether the project runs django-q2."""
    return apps.is_installed("django_q")


def nudge() -> None:
    """Ask a worker to drain the pending predictions; without a queue, drain them here.

    A broker that is down loses nothing: the rows stay pending, and the sweep or the next nudge
    takes them. Never raises.
    """
    try:
        if is_installed():
            from django_q.tasks import async_task

            async_task(DRAIN_TASK, task_name=SWEEP_NAME)
        else:
            drain()
    except Exception:
        logger.exception("No worker could be told of pending tickets; the sweep will find them")


def ensure_schedules(using: str) -> None:
    """Create or update the schedule that sweeps up pending predictions, where its table is."""
    if not is_installed():
        return
    from django_q.models import Schedule

    if using != router.db_for_write(Schedule):
        return
    if Schedule._meta.db_table not in connections[using].introspection.table_names():
        return
    Schedule.objects.update_or_create(
        name=SWEEP_NAME,
        defaults={
            "func": DRAIN_TASK,
            "schedule_type": Schedule.MINUTES,
            "minutes": get_settings().sweep_minutes,
            "repeats": -1,
        },
    )
