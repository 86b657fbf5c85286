"""Use case: a person decides."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db import models, router, transaction
from django.utils import timezone

from ticket_priority.conf import get_settings
from ticket_priority.decisions import (
    Reason,
    State,
    savepoint,
    send_after_commit,
    supersede_pending,
    write_history,
)
from ticket_priority.models import Override, Prediction, content_type_of, plugin_database
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_overridden
from ticket_priority.sources import PriorityChange, TicketSource, get_source

logger = logging.getLogger(__name__)

_STORED: Final = "_ticket_priority_stored"
_elsewhere: ContextVar[bool] = ContextVar("ticket_priority_recorded_elsewhere", default=False)


def override(
    instance: models.Model,
    priority: int,
    *,
    user: Any = None,
    reason: str = "",
    via: str = "",
) -> Override:
    """Set a ticket's priority on a person's word and record who, when, from, to and why.

    The host's column is written without `save()`, so nothing else of the ticket changes but its
    `auto_now` columns. Raises the model's DoesNotExist when the ticket is gone.
    """
    source = get_source(type(instance))
    using = router.db_for_write(type(instance), instance=instance)
    with transaction.atomic(using=using):
        current = source.lock(instance.pk, using=using)
        replaced = source.value_of(current)
        before = source.to_priority(replaced)
        source.write(current, priority, using=using)
        record = record_override(
            instance, before=before, after=priority, user=user, reason=reason, via=via
        )
        source.set_on(instance, priority)
        change = PriorityChange(
            replaced, source.value_of(instance), user=user, reason=reason, via=via
        )
        if change.after != change.before:
            with recorded_elsewhere():
                write_history(source, instance, change, using)
    return record


@contextmanager
def recorded_elsewhere() -> Iterator[None]:
    """Let no save or signal of the host count as a decision: the caller records it."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def remember_stored(source: TicketSource, instance: models.Model, using: str) -> None:
    """Note the value in the row, before a save writes over it. Never raises."""
    column = source.host_field.attname
    try:
        with savepoint(using):
            stored = source.queryset(using).values_list(column, flat=True).get(pk=instance.pk)
    except Exception:
        # A row that is gone, or a database that fails: the save itself will say so.
        instance.__dict__.pop(_STORED, None)
    else:
        instance.__dict__[_STORED] = stored


def notice_save(source: TicketSource, instance: models.Model) -> None:
    """Record the decision behind a save, where it changed the priority. Never raises."""
    if _STORED not in instance.__dict__:
        return
    change = PriorityChange(instance.__dict__.pop(_STORED), source.value_of(instance))
    if change.before == change.after or _elsewhere.get():
        return
    try:
        decision = source.decision_on(instance, change)
    except Exception:
        logger.exception("Nobody can say who changed the priority of a %s", source.label)
        return
    if decision is not None:
        record_decision(instance, decision)


def record_decision(instance: models.Model, change: PriorityChange) -> None:
    """Keep a decision that the host has written, unless it came from a stale form. Never raises.

    A host value that means no class is no decision about one.
    """
    if _elsewhere.get():
        return
    try:
        source, using = get_source(type(instance)), plugin_database()
        after = source.meaning_of(change.after)
        if after is None:
            return
        with transaction.atomic(using=using):
            latest = _latest(instance)
            if change.incidental and latest is not None and _puts_back(source, latest, change):
                _reopen(latest)
                return
            record_override(
                instance,
                before=_meaning_then(source, latest, change.before),
                after=after,
                user=change.user,
                reason=change.reason,
                via=change.via,
            )
    except Exception:
        logger.exception("A decision about a %s could not be recorded", instance._meta.label)


def _latest(instance: models.Model) -> Prediction | None:
    rows = Prediction.objects.using(plugin_database()).for_instance(instance)
    return rows.order_by("pk").last()


def _meaning_then(source: TicketSource, latest: Prediction | None, value: Any) -> Priority | None:
    """Translate a value that was replaced; a default means something once it was predicted."""
    if latest is not None and latest.state == State.APPLIED and latest.priority is not None:
        predicted = Priority(latest.priority)
        if source.to_host_value(predicted) == value:
            return predicted
    return source.to_priority(value)


def _puts_back(source: TicketSource, latest: Prediction, change: PriorityChange) -> bool:
    """Whether a form that was opened before the prediction wrote the old value over it."""
    if latest.state != State.APPLIED or latest.mode == "sync" or latest.decided_at is None:
        return False
    window = timedelta(minutes=get_settings().stale_form_minutes)
    is_fresh = timezone.now() - latest.decided_at < window
    return is_fresh and change.after == source.clean(latest.value_before)


def _reopen(prediction: Prediction) -> None:
    """Make a suggestion of a prediction that was undone unseen, so that somebody looks."""
    Prediction.objects.using(plugin_database()).filter(pk=prediction.pk).update(
        state=State.SUGGESTED, reason=Reason.STALE_FORM
    )


def record_override(
    instance: models.Model,
    *,
    before: int | None,
    after: int,
    user: Any = None,
    reason: str = "",
    via: str = "",
) -> Override:
    """Record a decision that the host has already written. Pending predictions are dropped."""
    source = get_source(type(instance))
    using = plugin_database()
    with transaction.atomic(using=using):
        supersede_pending(source, instance, Reason.PERSON_DECIDED)
        latest = Prediction.objects.using(using).for_instance(instance).order_by("pk").last()
        record: Override = Override.objects.using(using).create(
            content_type=content_type_of(source.model),
            object_id=str(instance.pk),
            prediction=latest,
            user=user if user is not None and user.is_authenticated else None,
            from_priority=before,
            to_priority=Priority(after),
            reason=reason,
            via=via,
        )
    send_after_commit(
        priority_overridden, sender=type(instance), instance=instance, override=record
    )
    return record


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest prediction about a ticket, and what became of it."""

    prediction: Prediction
    is_decided: bool
    """Whether a person has decided since the prediction was made."""
    is_open: bool
    """Whether it is a suggestion that waits for a person's word."""


def standings(instances: Iterable[models.Model]) -> dict[str, Standing]:
    """Return how each ticket stands with the model, by `str(pk)`; one query in all.

    A suggestion is open when it is the newest prediction, differs from the ticket's priority, and
    nobody has decided since. The tickets must be of one model. Tickets without a prediction are
    left out.
    """
    tickets = {str(ticket.pk): ticket for ticket in instances}
    if not tickets:
        return {}
    source = get_source(type(next(iter(tickets.values()))))
    decided = models.Exists(Override.objects.filter(prediction=models.OuterRef("pk")))
    latest = Prediction.objects.annotate(is_decided=decided).latest_for(tickets.values())
    return {
        key: Standing(
            prediction=prediction,
            is_decided=prediction.is_decided,
            is_open=not prediction.is_decided
            and prediction.state == Prediction.State.SUGGESTED
            and prediction.priority is not None
            and prediction.priority != source.to_priority(source.value_of(tickets[key])),
        )
        for key, prediction in latest.items()
    }


def open_suggestions(instances: Iterable[models.Model]) -> dict[str, Prediction]:
    """Return the suggestion that waits for a person's word, by `str(pk)`; see `standings`."""
    found = standings(instances)
    return {key: standing.prediction for key, standing in found.items() if standing.is_open}
