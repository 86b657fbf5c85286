"""django-q2 as the queue, configured by `Q_CLUSTER`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, Final

from django.core import checks
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connections, router
from django.utils import timezone

from ticket_priority.bounded_calls import Pool
from ticket_priority.db import after_commit
from ticket_priority.exceptions import ModelOverloadedError, ModelTimeoutError, QueueError
from ticket_priority.queues.base import Queue, Workers

logger = logging.getLogger(__name__)

BROKER_SECONDS: Final = 1.0
"""How long a caller waits for a broker that is no database."""
BROKER_PAUSE_SECONDS: Final = 30.0
"""How long a broker that did not answer in time is sent nothing."""

_LOOKED_AT: Final = 5

_SEEN_BY_FEW: Final = (DummyCache, LocMemCache, FileBasedCache)
"""Caches in which another process or machine may not see a worker's sign of life."""


class DjangoQQueue(Queue):
    """Enqueues through django-q2's broker, and schedules through its table.

    A broker that is no database of the project's is called in a thread and waited for only
    `BROKER_SECONDS`: its client may wait for ever, and a save would with it.
    """

    app = "django_q"
    setup = 'pip install "django-ticket-priority[queue]", add "django_q" to INSTALLED_APPS'
    worker_command = "manage.py qcluster"

    def __init__(self) -> None:
        self._pool = Pool()
        self._paused_until = 0.0

    def enqueue(self, task: str, *args: str) -> None:
        """Enqueue a task, unless the broker did not answer a moment ago.

        In a table, a task that waits already is not enqueued again. A worker may take it before
        the caller's rows are committed, so that is looked at again after the commit.
        """
        from django_q.conf import Conf

        if self._database and not Conf.SYNC and self._waits(task, *args):
            again = partial(self._send_unless_waiting, task, *args)
            after_commit(again, using=self._database)
        elif self._database or Conf.SYNC:
            self._send(task, *args)
        elif time.monotonic() >= self._paused_until:
            try:
                self._call(partial(self._send, task, *args))
            except QueueError:
                self._paused_until = time.monotonic() + BROKER_PAUSE_SECONDS
                logger.error(
                    "The broker does not answer: for %g s no worker is notified, and the sweep "
                    "finds what waits",
                    BROKER_PAUSE_SECONDS,
                )

    def shares_database(self, using: str) -> bool:
        return using == self._database

    def stores_schedules_in(self, using: str) -> bool:
        model = _schedules().model
        if using != router.db_for_write(model):
            return False
        return model._meta.db_table in connections[using].introspection.table_names()

    def schedule(self, name: str, task: str, *, minutes: int | None) -> None:
        schedules = _schedules()
        kind = schedules.model.DAILY if minutes is None else schedules.model.MINUTES
        values = {"func": task, "schedule_type": kind, "minutes": minutes, "repeats": -1}
        rows = schedules.filter(name=name)
        if not rows.update(**values):
            schedules.create(name=name, **values)
        # Names are not unique: two processes that migrate may have made it at the same moment.
        first = rows.order_by("pk").values_list("pk", flat=True).first()
        rows.exclude(pk=first).delete()
        # A run planned while the clock was ahead would let nothing run until then.
        now, interval = timezone.now(), timedelta(minutes=minutes or 24 * 60)
        rows.filter(next_run__gt=now + interval).update(next_run=now)

    def unschedule(self, name: str) -> None:
        _schedules().filter(name=name).delete()

    def next_run_at(self, name: str) -> datetime | None:
        runs = _schedules().filter(name=name).values_list("next_run", flat=True)
        found: datetime | None = runs.first()
        return found

    def workers(self) -> Workers:
        """Look for signs of life in Redis where that is the broker, else in the cache.

        Raises QueueError where the broker does not answer.
        """
        from django_q.brokers import Broker
        from django_q.status import Stat

        broker = self._broker
        is_in_cache = type(broker).get_stats is Broker.get_stats
        # The cache may be a table, and each thread has its own connection to a database.
        found = Stat.get_all(broker) if is_in_cache else self._call(partial(Stat.get_all, broker))
        if found:
            return Workers.ALIVE
        if is_in_cache and (broker.cache is None or isinstance(broker.cache, _SEEN_BY_FEW)):
            return Workers.UNKNOWN
        return Workers.ABSENT

    def check(self) -> Iterator[checks.CheckMessage]:
        """Find limits of workers that are missing or contradict each other."""
        from django_q.conf import Conf

        # Where no broker is named it is Redis, which never hands a task out a second time.
        repeats = Conf.BROKER_CLASS or Conf.IRON_MQ or Conf.SQS or Conf.ORM or Conf.MONGO
        if not Conf.TIMEOUT:
            yield checks.Warning(
                "Q_CLUSTER has no 'timeout': a model that hangs keeps a worker for ever.",
                hint='"timeout": 600, "retry": 1900, with one worker and "queue_limit": 1.',
                id="ticket_priority.W070",
            )
        elif repeats and Conf.RETRY <= Conf.TIMEOUT:
            least = (Conf.QUEUE_LIMIT / int(Conf.WORKERS) + 2) * Conf.TIMEOUT
            yield checks.Warning(
                f"Q_CLUSTER's 'retry' is {Conf.RETRY:g}, and a task may take 'timeout', "
                f"{Conf.TIMEOUT:g} seconds: a second worker is handed what the first is busy with.",
                hint=f"Set 'retry' above {least:g}: (queue_limit / workers + 2) * timeout.",
                id="ticket_priority.W071",
            )
        if repeats and not Conf.MAX_ATTEMPTS and not Conf.ACK_FAILURES:
            yield checks.Warning(
                "Q_CLUSTER has no 'max_attempts': a task that fails is tried again for ever.",
                hint='"max_attempts": 3, or "ack_failures": True; the sweep finds what was left.',
                id="ticket_priority.W072",
            )
        if not Conf.RECYCLE and not Conf.MAX_RSS:
            yield checks.Warning(
                "Q_CLUSTER has neither 'recycle' nor 'max_rss': a worker never gives memory back.",
                hint='"recycle": 5000; each new worker loads the model anew, so not too often.',
                id="ticket_priority.W073",
            )

    def check_deployment(self) -> Iterator[checks.CheckMessage]:
        """Find `sync`, which is for tests."""
        from django_q.conf import Conf

        if Conf.SYNC:
            yield checks.Warning(
                "Q_CLUSTER has 'sync': tasks run in the request that enqueues them, and raise "
                "there.",
                hint="Leave 'sync' out, and run manage.py qcluster.",
                id="ticket_priority.W074",
            )

    @property
    def _database(self) -> str | None:
        """The alias of the database that is the broker; None: it is no database."""
        from django_q.conf import Conf

        if Conf.BROKER_CLASS or Conf.IRON_MQ or Conf.SQS:
            return None
        return Conf.ORM or None

    @cached_property
    def _broker(self) -> Any:
        """Kept, as django-q2 would connect anew for each task."""
        from django_q.brokers import get_broker

        return get_broker()

    def _send(self, task: str, *args: str) -> None:
        from django_q.tasks import async_task

        async_task(task, *args, task_name=task, broker=self._broker)

    def _send_unless_waiting(self, task: str, *args: str) -> None:
        try:
            if not self._waits(task, *args):
                self._send(task, *args)
        except Exception:
            logger.exception("No worker could be notified; the sweep will find what waits")

    def _waits(self, task: str, *args: str) -> bool:
        """Say whether one of the newest messages that no worker has taken names this task."""
        from django_q.models import OrmQ

        waiting = OrmQ.objects.using(self._database).filter(lock__lte=timezone.now())
        newest = waiting.order_by("-pk")[:_LOOKED_AT]
        return any(one.name() == task and one.args() == args for one in newest)

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            return self._pool.call(function, BROKER_SECONDS)
        except (ModelTimeoutError, ModelOverloadedError):
            raise QueueError(
                f"The broker of django-q2 did not answer within {BROKER_SECONDS:g} s: start it, or "
                "look at its address in Q_CLUSTER."
            ) from None


def _schedules() -> Any:
    from django_q.models import Schedule

    return Schedule.objects
