"""No queue: what it would do is done in the request, after the commit."""

from __future__ import annotations

from django.utils.module_loading import import_string

from ticket_priority.queues.base import Queue


class InlineQueue(Queue):
    """Runs each task at once, in the process that enqueues it. Schedules nothing."""

    runs_in_process = True

    def enqueue(self, task: str, *args: str) -> None:
        import_string(task)(*args)

    def schedule(self, name: str, task: str, *, minutes: int | None) -> None:
        pass

    def unschedule(self, name: str) -> None:
        pass
