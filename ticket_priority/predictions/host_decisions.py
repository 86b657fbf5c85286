"""Decisions that people make on the host's own pages: found at its saves, kept as Overrides."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.db import models, router, transaction
from django.utils import timezone

from ticket_priority.conf import get_settings
from ticket_priority.db import SAVE_SECONDS, after_commit, retry_on_deadlock
from ticket_priority.models import Override, Prediction, plugin_database
from ticket_priority.predictions.containment import contain_errors, savepoint
from ticket_priority.predictions.outcome import DRAFTS, Reason, State, is_as_drafted, saved_value
from ticket_priority.predictions.overrides import is_recorded_elsewhere, record_override
from ticket_priority.predictions.standings import priority_at
from ticket_priority.sources import PriorityChange, TicketSource, get_source
from ticket_priority.sources.notes import Notes

_STORED: Final = Notes[tuple[Any]]()
"""The value in the row of each ticket object that is being saved."""


def remember_stored(
    source: TicketSource,
    instance: models.Model,
    using: str,
    update_fields: Collection[str] | None = None,
) -> None:
    """Read the priority in the row, before a save of these fields overwrites it.

    Hosts save the object of a new ticket several times. As long as it has the priority of its
    INSERT, these saves are not decisions, and nothing is read. Errors as in `contain_errors`.
    """
    _STORED.pop(instance)
    # The row may be gone or the database fail: the save itself will raise that.
    message = "The stored priority of a %s that is saved is not known"
    with contain_errors(using, message, source.label, level=logging.DEBUG):
        draft = DRAFTS.get(instance)
        is_as_inserted = draft is not None and is_as_drafted(source, instance, draft)
        if is_as_inserted or not source.is_among(update_fields):
            return
        column = source.host_field.attname
        with savepoint(using):
            stored = source.queryset(using).values_list(column, flat=True).get(pk=instance.pk)
        _STORED.put(instance, (stored,))


def notice_save(source: TicketSource, instance: models.Model) -> None:
    """Record the decision behind a save that changed the priority; errors as `contain_errors`."""
    stored = _STORED.pop(instance)
    if stored is None:
        return
    using = instance._state.db or router.db_for_write(type(instance))
    decision = None
    message = "It is not known who changed the priority of a %s"
    with contain_errors(using, message, source.label):
        change = PriorityChange(stored[0], saved_value(source, instance, using))
        if change.before == change.after:
            return
        DRAFTS.pop(instance)
        if is_recorded_elsewhere():
            return
        with savepoint(using):
            decision = source.decision_on(instance, change)
    if decision is not None:
        record_decision(instance, decision)


def record_decision(instance: models.Model, change: PriorityChange) -> None:
    """Keep a decision that the host has written, unless it came from a stale form.

    A host value that means no class is not recorded. If tickets live in another database than the
    plugin's rows, the decision is kept after the commit. Errors as in `contain_errors`.
    """
    if is_recorded_elsewhere():
        return
    using = instance._state.db or router.db_for_write(type(instance), instance=instance)
    keep = partial(_keep_decision, instance, change)
    if using == plugin_database():
        keep()
    else:
        after_commit(keep, using=using)


def _keep_decision(instance: models.Model, change: PriorityChange) -> None:
    using = plugin_database()
    message = "A decision about a %s could not be recorded"
    with contain_errors(using, message, instance._meta.label):
        retry_on_deadlock(partial(_keep, instance, change), using=using, seconds=SAVE_SECONDS)


def _keep(instance: models.Model, change: PriorityChange) -> None:
    source = get_source(type(instance))
    with transaction.atomic(using=plugin_database()):
        rows = Prediction.objects.using(plugin_database()).for_instance(instance)
        latest = rows.order_by("pk").last()
        if change.incidental and latest is not None and _undoes_prediction(source, latest, change):
            # A suggestion again, so that somebody looks at it.
            rows.filter(pk=latest.pk).update(state=State.SUGGESTED, reason=Reason.STALE_FORM)
            return
        after = source.meaning_of(change.after)
        if after is None or (change.incidental and _undoes_override(source, instance, change)):
            return
        record_override(
            instance,
            before=priority_at(source, instance.pk, change.before),
            after=after,
            user=change.user,
            reason=change.reason,
            via=change.via,
        )


def _undoes_prediction(source: TicketSource, latest: Prediction, change: PriorityChange) -> bool:
    """Say whether a form opened before the prediction wrote the old value over it."""
    came_with_the_ticket = latest.attempts == 0
    if latest.state != State.APPLIED or came_with_the_ticket or latest.decided_at is None:
        return False
    return _is_fresh(latest.decided_at) and change.after == source.clean(latest.value_before)


def _undoes_override(source: TicketSource, instance: models.Model, change: PriorityChange) -> bool:
    """Say whether a form opened before another person's decision undid it."""
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
    # A time in the future was read from a clock that was ahead.
    return abs(timezone.now() - at) < timedelta(minutes=get_settings().decisions.stale_form_minutes)
