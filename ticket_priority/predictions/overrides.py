"""A person's decision: set a ticket's priority and record it as an Override."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, models, router, transaction
from django.utils import timezone
from django.utils.translation import gettext, ngettext

from ticket_priority.conf import get_settings
from ticket_priority.db import SAVE_SECONDS, retry_on_deadlock
from ticket_priority.exceptions import OverrideRateError, PriorityRefusedError
from ticket_priority.models import Override, Prediction, plugin_database
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions.outcome import (
    Reason,
    send_after_commit,
    supersede_pending,
    write_history,
)
from ticket_priority.predictions.refusals import is_refusal
from ticket_priority.predictions.standings import priority_at
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_overridden
from ticket_priority.sources import PriorityChange, get_source
from ticket_priority.sources.keys import ticket_key
from ticket_priority.sources.refusals import why_refused

_elsewhere: ContextVar[bool] = ContextVar("ticket_priority_recorded_elsewhere", default=False)


def override(
    instance: models.Model,
    priority: int,
    *,
    user: Any = None,
    reason: str = "",
    via: str = "",
) -> Override:
    """Set a ticket's priority for a person, and record who, when, from, to and why.

    The host's column is written without `save()`, so only the `auto_now` columns change besides.
    Raises OverrideRateError when the user has decided too often, PriorityRefusedError when the
    host does not take the priority, and the model's DoesNotExist when the ticket is gone.
    """
    check_override_rate(user)
    source = get_source(type(instance))
    using = router.db_for_write(type(instance), instance=instance)

    def decide() -> Override:
        with transaction.atomic(using=using):
            current = source.lock(instance.pk, using=using)
            replaced = source.value_of(current)
            value = source.to_host_value(priority)
            if value != replaced and (why := why_refused(source, current, value, using=using)):
                raise _refused(priority, why)
            before = priority_at(source, instance.pk, replaced)
            source.write(current, priority, using=using)
            record = record_override(
                instance, before=before, after=priority, user=user, reason=reason, via=via
            )
            source.set_on(instance, priority)
            after = source.value_of(instance)
            tell_host(instance, PriorityChange(replaced, after, user, reason=reason, via=via))
        return record

    try:
        return retry_on_deadlock(decide, using=using, seconds=SAVE_SECONDS)
    except DatabaseError as error:
        if not is_refusal(error, using):
            raise
        # The database's own message may quote the ticket.
        raise _refused(priority, gettext("the database refuses it")) from None


def _refused(priority: int, why: str) -> PriorityRefusedError:
    text = gettext("This ticket cannot have the priority %(label)s: %(why)s.")
    return PriorityRefusedError(text % {"label": Priority(priority).label, "why": why})


def check_override_rate(user: Any) -> None:
    """Raise OverrideRateError where a person has decided as often as OVERRIDE_RATE allows.

    Every Override of the person counts; those without a user do not. Takes one query, which does
    not see decisions made at the same moment.
    """
    rate = get_settings().decisions.override_cap
    if rate is None or user is None or not user.is_authenticated:
        return
    now, period = timezone.now(), timedelta(seconds=rate.seconds)
    theirs = Override.objects.using(plugin_database()).filter(user=user.pk)
    # Neither earlier ones, nor those made while the clock was ahead.
    recent = theirs.filter(created_at__range=(now - period, now + period)).order_by("-created_at")
    # The oldest of as many as are allowed: when it leaves the period, another is allowed.
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
    """Write a person's change to the host's history, if the value changed."""
    if change.after != change.before:
        using = instance._state.db or router.db_for_write(type(instance), instance=instance)
        with recorded_elsewhere():
            write_history(get_source(type(instance)), instance, change, using)


@contextmanager
def recorded_elsewhere() -> Iterator[None]:
    """Record no decision for the host's saves and signals here: the caller records it."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def is_recorded_elsewhere() -> bool:
    """Say whether this runs inside `recorded_elsewhere()`."""
    return _elsewhere.get()


def record_override(
    instance: models.Model,
    *,
    before: int | None,
    after: int,
    user: Any = None,
    reason: str = "",
    via: str = "",
) -> Override:
    """Record a decision that the host has already written, and close pending predictions."""
    source = get_source(type(instance))
    using = plugin_database()
    with transaction.atomic(using=using):
        supersede_pending(source, instance, Reason.PERSON_DECIDED)
        latest = Prediction.objects.using(using).for_instance(instance).order_by("pk").last()
        record: Override = Override.objects.using(using).create(
            content_type=content_type_of(source.model),
            object_id=ticket_key(instance),
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
