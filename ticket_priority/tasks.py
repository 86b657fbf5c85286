"""Entry points for the queue. Arguments are strings; rows are fetched again."""

from __future__ import annotations

from ticket_priority.predictions import shadow
from ticket_priority.predictions.outbox import drain
from ticket_priority.queues import django_q as queue


def drain_predictions() -> int:
    """Classify every pending prediction; return how many were decided."""
    return drain()


def sweep() -> int:
    """Do as `drain_predictions`, and have the shadow asked afterwards, in a task of its own."""
    decided = drain()
    if shadow.is_wanted():
        queue.enqueue_shadow()
    return decided


def ask_shadow() -> int:
    """Let the shadow answer what the active version has; return how many tickets it answered."""
    return shadow.catch_up()


def retrain() -> str:
    """Begin a training run if one is due; return what was done, or why nothing was."""
    # Here, as it needs numpy: a worker that only classifies may do without.
    from ticket_priority.training.schedule import retrain as begin

    return begin()
