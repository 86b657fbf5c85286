"""`get_queue()`: who runs a task later, chosen by `TICKET_PRIORITY["QUEUE"]["BACKEND"]`."""

from __future__ import annotations

import inspect
import os
from functools import lru_cache
from typing import Any, Final

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from ticket_priority.conf import SETTING, get_settings
from ticket_priority.exceptions import QueueError
from ticket_priority.queues.base import Queue

BACKENDS: Final = (
    "ticket_priority.queues.django_q.DjangoQQueue",
    "ticket_priority.queues.inline.InlineQueue",
)
"""Where the settings name none, the first of these that is installed is the queue."""


def get_queue() -> Queue:
    """Return this process's queue.

    Raises QueueError where the settings name what cannot be imported, is no Queue, is not
    installed, or cannot be made.
    """
    return _queue_of(os.getpid())


def has_workers() -> bool:
    """Say whether tasks run in workers; False too where the queue cannot be used."""
    try:
        return not get_queue().runs_in_process
    except QueueError:
        return False


def recommended_queue() -> type[Queue]:
    """Return the queue that a project without workers is advised to install."""
    return _class_at(BACKENDS[0])


def reset() -> None:
    """Forget this process's queue, its connections and its threads."""
    _queue_of.cache_clear()


@lru_cache(maxsize=1)
def _queue_of(pid: int) -> Queue:
    path = get_settings().queue.backend
    if path is None:
        return next(cls for cls in map(_class_at, BACKENDS) if cls.is_available())()
    cls = _class_at(path)
    if not cls.is_available():
        raise QueueError(f"{path} is chosen as the queue, and {cls.app} is not in INSTALLED_APPS.")
    try:
        return cls()
    except Exception as error:
        raise QueueError(f"The queue {path} cannot be made: {error}") from error


def _class_at(path: str) -> type[Queue]:
    try:
        found = import_string(str(path))
    except Exception as error:
        # Whatever a module does when it is imported, tickets must be saved.
        raise QueueError(
            f"{SETTING}['QUEUE']['BACKEND'] is {path!r}, which cannot be imported: {error}"
        ) from error
    if not (inspect.isclass(found) and issubclass(found, Queue)) or inspect.isabstract(found):
        raise QueueError(f"{SETTING}['QUEUE']['BACKEND'] is {path!r}, which is no complete Queue.")
    return found


def _reset_on_change(*, setting: str, **kwargs: Any) -> None:
    if setting in (SETTING, "INSTALLED_APPS"):
        reset()


setting_changed.connect(_reset_on_change, dispatch_uid="ticket_priority.queues.reset")
