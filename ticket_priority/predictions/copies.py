"""New tickets that were saved with the priority that another was predicted: copies of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from functools import partial
from typing import Any, Final

from django.db import models
from django.db.models.base import ModelState
from django.utils import timezone

from ticket_priority.db import after_commit
from ticket_priority.ml.text.normalisation import text_hash
from ticket_priority.models import Prediction, plugin_database
from ticket_priority.predictions.containment import contain_errors, savepoint
from ticket_priority.predictions.outcome import Reason, State, save_about
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource

MODE: Final = "copy"
"""The mode of a prediction that a ticket's priority was probably copied from."""

_origin: ContextVar[Any] = ContextVar("ticket_priority_copied_from", default=None)


@contextmanager
def copied_from(key: Any) -> Iterator[None]:
    """Save a new ticket whose priority is that of the ticket with this key; None: of none."""
    token = _origin.set(key)
    try:
        yield
    finally:
        _origin.reset(token)


def note_copy(source: TicketSource, instance: models.Model, value: Any, using: str) -> None:
    """Store the prediction that a new ticket's priority equals, if it has the same text.

    Then nothing shows that a person chose it. Errors as in `contain_errors`.
    """
    priority = source.to_priority(value)
    if priority is None:
        return
    store = partial(_store, source, instance, priority, _origin.get())
    if using == plugin_database():
        store()
    else:
        after_commit(store, using=using)


def again(prediction: Prediction) -> Prediction:
    """Return a prediction like this one, to be stored about another ticket."""
    other = copy(prediction)
    other.pk, other._state = None, ModelState()
    return other


def _store(source: TicketSource, instance: models.Model, priority: Priority, origin: Any) -> None:
    using = plugin_database()
    message = "It is not known whether a new %s is a copy of another"
    with contain_errors(using, message, source.label), savepoint(using):
        applied = Prediction.objects.using(using).filter(state=State.APPLIED, priority=priority)
        if origin is None:
            rows = applied.filter(text_hash=text_hash(source.text_of(instance)))
        else:
            rows = applied.for_keys(source.model, [origin])
        if (original := rows.order_by("pk").first()) is None:
            return
        copied = again(original)
        copied.mode, copied.reason = MODE, Reason.OK
        copied.attempts, copied.created_at = 0, timezone.now()
        save_about(source, instance, copied)
