"""How workers learn of pending predictions, and what they do on a schedule."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from ticket_priority.classifiers import LOAD_WAIT_SECONDS, loaded_model_version, preload
from ticket_priority.conf import get_settings
from ticket_priority.db import after_commit
from ticket_priority.exceptions import QueueError
from ticket_priority.models import Prediction, plugin_database
from ticket_priority.queues import get_queue, has_workers

logger = logging.getLogger(__name__)

DRAIN_TASK: Final = "ticket_priority.tasks.drain_predictions"
SWEEP_TASK: Final = "ticket_priority.tasks.sweep"
SWEEP_NAME: Final = "ticket_priority.sweep"
RETRAIN_TASK: Final = "ticket_priority.tasks.retrain"
RETRAIN_NAME: Final = "ticket_priority.retrain"

IN_REQUEST: Final = 32
"""How many pending predictions a request classifies, where there are no workers."""

_JUST_FAILED: Final = frozenset(
    {
        Prediction.Reason.MODEL_ERROR,
        Prediction.Reason.DEADLINE,
        Prediction.Reason.OVERLOADED,
        Prediction.Reason.BREAKER_OPEN,
    }
)

_next_sweep_at = 0.0
"""Where there are no workers: when, on this process's clock, a save may sweep again."""
_waits_for_load = False


def notify_workers() -> None:
    """Have a worker drain the pending predictions; without workers, drain some of them here.

    Where the queue fails nothing is lost: the rows stay pending, and the sweep or the next call
    takes them. Never raises.
    """
    global _next_sweep_at
    try:
        if not get_queue().runs_in_process:
            get_queue().enqueue(DRAIN_TASK)
            return
        get_queue().enqueue(DRAIN_TASK, str(IN_REQUEST))
        rows = Prediction.objects.using(plugin_database())
        if rows.claimable(claim_seconds=get_settings().queue.claim_seconds).exists():
            _next_sweep_at = 0.0
    except Exception:
        logger.exception("No worker could be notified; the sweep will find the pending tickets")


def wake_workers() -> bool:
    """Notify workers after the commit; return whether there are any."""
    if not has_workers():
        return False
    after_commit(notify_workers, using=plugin_database())
    return True


def transactional_drain(using: str) -> Callable[[], None] | None:
    """Return what enqueues a drain in the transaction that stores a prediction of a ticket there.

    None: workers can be notified only after the commit.
    """
    try:
        queue = get_queue()
    except QueueError:
        # A system check names it. The ticket must be saved.
        return None
    together = using == plugin_database() and queue.shares_database(using)
    return partial(queue.enqueue, DRAIN_TASK) if together else None


def wants_drain(prediction: Prediction) -> bool:
    """Say whether the save of a new ticket calls for a drain.

    Without workers a drain runs in the request, so not right after the model has failed there: the
    next tickets that the model answers take along those that wait, some each. So do the first one
    of a process and one every SWEEP_MINUTES, since other processes may have left some.
    """
    global _next_sweep_at, _waits_for_load
    if has_workers():
        return prediction.needs_worker
    if prediction.reason in _JUST_FAILED:
        _next_sweep_at = 0.0
        _waits_for_load = loaded_model_version() is None
        return False
    if prediction.state != Prediction.State.PENDING and time.monotonic() >= _next_sweep_at:
        _next_sweep_at = time.monotonic() + 60 * get_settings().queue.sweep_minutes
        return True
    return prediction.needs_worker


def drain_when_loaded() -> None:
    """Wait for a model that was being loaded when a ticket came, and drain. Never raises.

    For the end of a request, when nobody waits any more: else the first tickets of a process
    without workers would wait for the next one.
    """
    global _waits_for_load
    if not _waits_for_load:
        return
    _waits_for_load = False
    if preload(seconds=LOAD_WAIT_SECONDS):
        notify_workers()


def ensure_schedules(using: str) -> None:
    """Bring the schedules in line with the settings, once the database that holds them is migrated.

    One sweeps up pending predictions. The other looks daily whether a training run is due; it is
    there only with `RETRAIN`.
    """
    queue, options = get_queue(), get_settings()
    if not queue.stores_schedules_in(using):
        return
    queue.schedule(SWEEP_NAME, SWEEP_TASK, minutes=options.queue.sweep_minutes)
    if options.training.retrain is None:
        queue.unschedule(RETRAIN_NAME)
    else:
        queue.schedule(RETRAIN_NAME, RETRAIN_TASK, minutes=None)
