"""Predictions that the host does not take: they become suggestions, and the ticket is saved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from django.db import DatabaseError, OperationalError, models

from ticket_priority.db import needs_rollback, retry_on_deadlock
from ticket_priority.models import Prediction
from ticket_priority.predictions.containment import savepoint
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource
from ticket_priority.sources.refusals import why_refused

logger = logging.getLogger(__name__)

_MARIADB_SIGNAL: Final = 1644
"""The error of a trigger, which MariaDB files under those of the connection."""


def suggest_if_refused(
    source: TicketSource, instance: models.Model, prediction: Prediction, using: str
) -> bool:
    """Make an answer that the host does not take a suggestion; say whether it is one."""
    value = source.to_host_value(prediction.priority or 0)
    why = why_refused(source, instance, value, using=using)
    if why:
        suggest_refused(source, prediction, why)
    return bool(why)


def suggest_refused(source: TicketSource, prediction: Prediction, why: str) -> None:
    """Make an answer a suggestion that the host has refused."""
    prediction.state, prediction.reason = Prediction.State.SUGGESTED, Prediction.Reason.REFUSED
    label = Priority(prediction.priority or 0).slug
    logger.warning("A ticket of %s is not set to %s: %s", source.label, label, why)


def is_refusal(error: DatabaseError, using: str) -> bool:
    """Say whether the database refuses a value, and goes on: neither a lock nor a connection."""
    if isinstance(error, OperationalError) and error.args[:1] != (_MARIADB_SIGNAL,):
        return False
    return not needs_rollback(using)


def settle_or_suggest(
    source: TicketSource,
    instance: models.Model,
    prediction: Prediction,
    settle: Callable[[], None],
    using: str,
) -> None:
    """Run the transaction that applies an answer; where the host refuses that, that suggests it.

    `settle` must write no answer whose reason is REFUSED.
    """
    try:
        retry_on_deadlock(settle, using=using)
    except DatabaseError as error:
        is_applied = prediction.state in (Prediction.State.PENDING, Prediction.State.APPLIED)
        if not is_applied or not is_refusal(error, using):
            raise
        suggest_refused(source, prediction, f"its UPDATE fails with {type(error).__name__}")
        source.set_value(instance, source.clean(prediction.value_before))
        retry_on_deadlock(settle, using=using)


def fill_gap(source: TicketSource, instance: models.Model, using: str) -> bool:
    """Set Medium, or else another class that the host takes; say whether there is one."""
    for priority in (Priority.MEDIUM, Priority.LOW, Priority.HIGH):
        value = source.to_host_value(priority)
        if not why_refused(source, instance, value, using=using):
            source.set_value(instance, value)
            return True
    return False


def insert_without_if_refused(
    source: TicketSource, instance: models.Model, prediction: Prediction, before: Any, using: str
) -> None:
    """Have the object inserted with the value `before` where the database refuses the prediction.

    Triggers, and constraints that Django does not know, cannot be asked. Not covered is what the
    database looks at only at the commit of a transaction that was begun before.
    """

    def insert(manager: Any, database: str, fields: Any, *rest: Any) -> Any:
        host: Any = type(instance)
        if source.host_field not in fields:
            return host._do_insert(instance, manager, database, fields, *rest)
        del instance.__dict__["_do_insert"]
        try:
            with savepoint(database):
                return host._do_insert(instance, manager, database, fields, *rest)
        except DatabaseError as error:
            if not is_refusal(error, database):
                raise
            suggest_refused(source, prediction, f"its INSERT fails with {type(error).__name__}")
        source.set_value(instance, before)
        return host._do_insert(instance, manager, database, fields, *rest)

    # The step of `save()` that inserts a row; there is no public one.
    instance.__dict__["_do_insert"] = insert
