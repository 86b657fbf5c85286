"""Use case: a person decides."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.db import models, router, transaction
from django.utils import timezone
from django.utils.translation import ngettext

from ticket_priority.conf import get_settings
from ticket_priority.db import SAVE_SECONDS, after_commit, needs_rollback, retry_on_deadlock
from ticket_priority.exceptions import OverrideRateError
from ticket_priority.logs import redacted_traceback
from ticket_priority.models import Override, Prediction, plugin_database
from ticket_priority.models.rows import TicketRowQuerySet, content_type_of
from ticket_priority.predictions import audit
from ticket_priority.predictions.outcome import (
    DRAFT,
    Reason,
    State,
    bears,
    savepoint,
    send_after_commit,
    supersede_pending,
    write_history,
)
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_overridden
from ticket_priority.sources.base import PriorityChange, TicketSource
from ticket_priority.sources.registry import get_source

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
    `auto_now` columns. Raises OverrideRateError when the user has decided too often, and the
    model's DoesNotExist when the ticket is gone.
    """
    check_override_rate(user)
    source = get_source(type(instance))
    using = router.db_for_write(type(instance), instance=instance)

    def decide() -> Override:
        with transaction.atomic(using=using):
            current = source.lock(instance.pk, using=using)
            replaced = source.value_of(current)
            before = _meaning_at(source, instance.pk, replaced)
            source.write(current, priority, using=using)
            record = record_override(
                instance, before=before, after=priority, user=user, reason=reason, via=via
            )
            source.set_on(instance, priority)
            after = source.value_of(instance)
            tell_host(instance, PriorityChange(replaced, after, user, reason=reason, via=via))
        return record

    return retry_on_deadlock(decide, using=using, seconds=SAVE_SECONDS)


def check_override_rate(user: Any) -> None:
    """Raise OverrideRateError where a person has decided as often as OVERRIDE_RATE allows.

    Every Override of theirs counts, however it came about. Nobody's decisions are not counted.
    One query; decisions that are made in the same moment do not see each other.
    """
    rate = get_settings().decisions.override_cap
    if rate is None or user is None or not user.is_authenticated:
        return
    now, period = timezone.now(), timedelta(seconds=rate.seconds)
    theirs = Override.objects.using(plugin_database()).filter(user=user.pk)
    recent = theirs.filter(created_at__gt=now - period).order_by("-created_at")
    # Of as many as are allowed, the oldest: once it has left the period there is room for another.
    oldest = recent.values_list("created_at", flat=True)[rate.number - 1 : rate.number].first()
    if oldest is None:
        return
    wait = math.ceil((oldest + period - now).total_seconds())
    minutes = math.ceil(wait / 60)
    text = ngettext(
        "You have decided on as many priorities as one person may (%(rate)s). Try again in "
        "%(number)d minute.",
        "You have decided on as many priorities as one person may (%(rate)s). Try again in "
        "%(number)d minutes.",
        minutes,
    )
    raise OverrideRateError(
        text % {"rate": get_settings().decisions.override_rate, "number": minutes}, wait=wait
    )


def tell_host(instance: models.Model, change: PriorityChange) -> None:
    """Write a person's change to the host's history, where it changed anything.

    Raises only what loses the transaction, see `transactions.needs_rollback`.
    """
    if change.after != change.before:
        using = instance._state.db or router.db_for_write(type(instance), instance=instance)
        with recorded_elsewhere():
            write_history(get_source(type(instance)), instance, change, using)


@contextmanager
def recorded_elsewhere() -> Iterator[None]:
    """Let no save or signal of the host count as a decision: the caller records it."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def remember_stored(
    source: TicketSource,
    instance: models.Model,
    using: str,
    update_fields: Collection[str] | None = None,
) -> None:
    """Note the value in the row, before a save of these fields writes over it.

    Hosts save the object of a new ticket several times in a row. As long as it bears the priority
    of its INSERT, none of these saves is a decision, and nothing is read. Raises only what loses
    the transaction.
    """
    instance.__dict__.pop(_STORED, None)
    try:
        draft = instance.__dict__.get(DRAFT)
        is_as_inserted = draft is not None and bears(source, instance, draft)
        if is_as_inserted or not source.is_among(update_fields):
            return
        column = source.host_field.attname
        with savepoint(using):
            stored = source.queryset(using).values_list(column, flat=True).get(pk=instance.pk)
    except Exception as error:
        if needs_rollback(using):
            raise
        # A row that is gone, or a database that fails: the save itself will say so.
        logger.debug(
            "A %s is saved, and what is stored is not known: %s",
            source.label,
            redacted_traceback(error),
        )
    else:
        instance.__dict__[_STORED] = stored


def notice_save(source: TicketSource, instance: models.Model) -> None:
    """Record the decision behind a save, where it changed the priority.

    Raises only what loses the transaction.
    """
    if _STORED not in instance.__dict__:
        return
    using = instance._state.db or router.db_for_write(type(instance))
    try:
        change = PriorityChange(instance.__dict__.pop(_STORED), source.value_of(instance))
        if change.before == change.after:
            return
        instance.__dict__.pop(DRAFT, None)
        if _elsewhere.get():
            return
        with savepoint(using):
            decision = source.decision_on(instance, change)
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "Nobody can say who changed the priority of a %s: %s",
            source.label,
            redacted_traceback(error),
        )
        return
    if decision is not None:
        record_decision(instance, decision)


def record_decision(instance: models.Model, change: PriorityChange) -> None:
    """Keep a decision that the host has written, unless it came from a stale form.

    A host value that means no class is no decision about one. Decisions about tickets that live
    in another database than the plugin's rows are kept after the commit. Raises only what loses
    the transaction.
    """
    if _elsewhere.get():
        return
    using = instance._state.db or router.db_for_write(type(instance), instance=instance)
    keep = partial(_keep_decision, instance, change)
    if using == plugin_database():
        keep()
    else:
        after_commit(keep, using=using)


def _keep_decision(instance: models.Model, change: PriorityChange) -> None:
    using = plugin_database()
    try:
        retry_on_deadlock(partial(_keep, instance, change), using=using, seconds=SAVE_SECONDS)
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "A decision about a %s could not be recorded: %s",
            instance._meta.label,
            redacted_traceback(error),
        )


def _keep(instance: models.Model, change: PriorityChange) -> None:
    source = get_source(type(instance))
    with transaction.atomic(using=plugin_database()):
        latest = _latest(instance)
        if change.incidental and latest is not None and _puts_back(source, latest, change):
            _reopen(latest)
            return
        after = source.meaning_of(change.after)
        if after is None or (change.incidental and _overturns(source, instance, change)):
            return
        record_override(
            instance,
            before=_meaning_at(source, instance.pk, change.before),
            after=after,
            user=change.user,
            reason=change.reason,
            via=change.via,
        )


def _latest(instance: models.Model) -> Prediction | None:
    rows = Prediction.objects.using(plugin_database()).for_instance(instance)
    return rows.order_by("pk").last()


def _puts_back(source: TicketSource, latest: Prediction, change: PriorityChange) -> bool:
    """Whether a form that was opened before the prediction wrote the old value over it."""
    came_with_the_ticket = latest.attempts == 0
    if latest.state != State.APPLIED or came_with_the_ticket or latest.decided_at is None:
        return False
    return _is_fresh(latest.decided_at) and change.after == source.clean(latest.value_before)


def _overturns(source: TicketSource, instance: models.Model, change: PriorityChange) -> bool:
    """Whether a form that was opened before another person's decision undid it."""
    overrides = Override.objects.using(plugin_database()).for_instance(instance)
    last = overrides.order_by("pk").last()
    if last is None or last.user_id == getattr(change.user, "pk", None):
        return False
    if last.from_priority is None:
        is_undone = source.is_unset(change.after)
    else:
        is_undone = source.meaning_of(change.after) == last.from_priority
    return is_undone and _is_fresh(last.created_at)


def _is_fresh(at: datetime) -> bool:
    return timezone.now() - at < timedelta(minutes=get_settings().decisions.stale_form_minutes)


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


def priorities_of(instances: Iterable[models.Model]) -> dict[str, Priority | None]:
    """Return the priority of each ticket by `str(pk)`; None: nobody has decided.

    A host value that means unset is a priority all the same where it was predicted and applied, or
    a person decided. That takes two queries in all, and none where no such value has a meaning.
    The tickets must be of one model.
    """
    tickets = list(instances)
    if not tickets:
        return {}
    source = get_source(type(tickets[0]))
    return _meanings(source, {str(ticket.pk): source.value_of(ticket) for ticket in tickets})


def _meaning_at(source: TicketSource, pk: Any, value: Any) -> Priority | None:
    return _meanings(source, {str(pk): value})[str(pk)]


def _meanings(source: TicketSource, values: Mapping[str, Any]) -> dict[str, Priority | None]:
    found = {key: source.to_priority(value) for key, value in values.items()}
    doubtful = {key: source.meaning_of(values[key]) for key in values if found[key] is None}
    doubtful = {key: meaning for key, meaning in doubtful.items() if meaning is not None}
    if doubtful:
        for rows in decisive_rows(source.model):
            decided = rows.filter(object_id__in=doubtful).values_list("object_id", flat=True)
            found.update({key: doubtful[key] for key in decided.distinct()})
    return found


def decisive_rows(model: type[models.Model]) -> tuple[TicketRowQuerySet, TicketRowQuerySet]:
    """Return the overrides and applied predictions, each of which makes a value a priority."""
    using = plugin_database()
    applied = Prediction.objects.using(using).filter(state=State.APPLIED)
    return (
        Override.objects.using(using).for_model(model).order_by(),
        applied.for_model(model).order_by(),
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest prediction about a ticket, and what became of it."""

    prediction: Prediction
    is_decided: bool
    """Whether a person has decided since the prediction was made."""
    is_open: bool
    """Whether it is a suggestion that waits for a person's word."""


def standings(instances: Iterable[models.Model]) -> dict[str, Standing]:
    """Return how each ticket stands with the model, by `str(pk)`; one query, and `priorities_of`'s.

    A suggestion is open when it is the newest prediction, differs from the ticket's priority, and
    nobody has decided since. The tickets must be of one model. Tickets without a prediction, and
    those whose prediction is held back, are left out.
    """
    tickets = {str(ticket.pk): ticket for ticket in instances}
    if not tickets:
        return {}
    priorities = priorities_of(tickets.values())
    decided = models.Exists(Override.objects.filter(prediction=models.OuterRef("pk")))
    latest = Prediction.objects.annotate(is_decided=decided).latest_for(tickets.values())
    return {
        key: Standing(
            prediction=prediction,
            is_decided=prediction.is_decided,
            is_open=not prediction.is_decided
            and prediction.state == State.SUGGESTED
            and prediction.reason != Reason.AUDIT
            and prediction.priority is not None
            and prediction.priority != priorities[key],
        )
        for key, prediction in latest.items()
        if not audit.is_held_back(prediction, priorities[key])
    }


def open_suggestions(instances: Iterable[models.Model]) -> dict[str, Prediction]:
    """Return the suggestion that waits for a person's word, by `str(pk)`; see `standings`."""
    found = standings(instances)
    return {key: standing.prediction for key, standing in found.items() if standing.is_open}
