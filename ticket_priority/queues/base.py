"""What a queue must do: subclass `Queue` in a module of its own, and name it in `QUEUE`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from django.apps import apps
from django.core.checks import CheckMessage


class Workers(StrEnum):
    """Whether workers live: one gave a sign of life lately, none did, or none could be seen."""

    ALIVE = "alive"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Queue(ABC):
    """Runs tasks later, now and then or on a schedule.

    A task is the dotted path of a function whose arguments are strings. It only says that there is
    work: pending predictions are rows, so a task may be lost, or run twice, without harm.

    Each process makes its own instance, without arguments, so an instance may keep connections and
    threads: no other process inherits them.
    """

    app: ClassVar[str] = ""
    """The Django app that must be installed; schedules are made once its tables are there."""
    setup: ClassVar[str] = ""
    """How a project installs the queue, for hints of checks: an imperative without a full stop."""
    worker_command: ClassVar[str] = ""
    """What starts a worker."""
    runs_in_process: ClassVar[bool] = False
    """Whether there are no workers, so that `enqueue` runs a task at once, in this process."""

    @classmethod
    def is_available(cls) -> bool:
        """Say whether the project has installed the queue."""
        return not cls.app or apps.is_installed(cls.app)

    @abstractmethod
    def enqueue(self, task: str, *args: str) -> None:
        """Have a worker run a task; raises what the broker raises.

        A save may wait for this, so a broker that does not answer must not be waited for long.
        """

    def shares_database(self, using: str) -> bool:
        """Say whether `enqueue` writes to that database, and so in a transaction on it.

        Then a task appears at the commit, vanishes with a rollback, and costs no commit of its own.
        """
        return False

    def stores_schedules_in(self, using: str) -> bool:
        """Say whether schedules can be made once that database is migrated."""
        return True

    @abstractmethod
    def schedule(self, name: str, task: str, *, minutes: int | None) -> None:
        """Have a task run every so many minutes; None: once a day.

        A schedule of that name is changed, and its next run kept unless that is further off. There
        must be one afterwards, also where two processes call this at the same moment.
        """

    @abstractmethod
    def unschedule(self, name: str) -> None:
        """Remove a schedule, if it is there."""

    def next_run_at(self, name: str) -> datetime | None:
        """Return when a schedule runs next; None: it is not there."""
        return None

    def workers(self) -> Workers:
        """Say whether workers live, as far as the broker can tell; raises what it raises."""
        return Workers.UNKNOWN

    def check(self) -> Iterable[CheckMessage]:
        """Return what is wrong with the queue's configuration, for `manage.py check`."""
        return ()

    def check_deployment(self) -> Iterable[CheckMessage]:
        """Return what only `manage.py check --deploy` should say."""
        return ()
