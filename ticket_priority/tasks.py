"""What the queue runs. Arguments are strings; rows are fetched again."""

from __future__ import annotations

from typing import Final

from ticket_priority.models import Prediction, plugin_database
from ticket_priority.predictions import shadow
from ticket_priority.predictions.outbox import drain
from ticket_priority.queues import get_queue

SHADOW_TASK: Final = "ticket_priority.tasks.ask_shadow"


def drain_predictions(most: str = "inf") -> int:
    """Classify every pending prediction, or some; return how many were decided."""
    return drain(most=float(most))


def sweep() -> int:
    """Do as `drain_predictions`, and enqueue `ask_shadow` where there is a shadow.

    Predictions that came by `bulk_create`, or from an older release, are marked too.
    """
    decided = drain()
    Prediction.objects.using(plugin_database()).mark_newest()
    if shadow.is_wanted():
        get_queue().enqueue(SHADOW_TASK)
    return decided


def ask_shadow() -> int:
    """Let the shadow answer what the active version has; return how many tickets it answered."""
    return shadow.catch_up()


def retrain() -> str:
    """Start a training run if one is due; return what was done, or why nothing was."""
    # Imported here as it needs numpy: a worker that only classifies may do without.
    from ticket_priority.training.schedule import retrain as start

    return start()
