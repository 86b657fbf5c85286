"""Use case: a person decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models, router, transaction

from ticket_priority.decisions import Reason, send_after_commit, supersede_pending
from ticket_priority.models import Override, Prediction, content_type_of, plugin_database
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_overridden
from ticket_priority.sources import get_source


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
        before = source.to_priority(source.value_of(current))
        source.write(current, priority, using=using)
        record = record_override(
            instance, before=before, after=priority, user=user, reason=reason, via=via
        )
    source.set_on(instance, priority)
    return record


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
