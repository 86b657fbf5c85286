"""The priority of tickets, and what became of the newest prediction about each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import models

from ticket_priority.models import Override, Prediction, plugin_database
from ticket_priority.models.rows import TicketRowQuerySet
from ticket_priority.predictions import audit
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource, get_source
from ticket_priority.sources.column import defaults_called_once
from ticket_priority.sources.keys import key_text, ticket_key

State, Reason = Prediction.State, Prediction.Reason


def priorities_of(instances: Iterable[models.Model]) -> dict[str, Priority | None]:
    """Return the priority of each ticket by `key_text`; None: unset.

    A host value that means unset counts as a priority where it was predicted and applied, or a
    person decided. Checking that takes two queries, or none where no such value has a meaning. The
    tickets must be of one model.
    """
    tickets = list(instances)
    if not tickets:
        return {}
    source = get_source(type(tickets[0]))
    return _meanings(source, {ticket_key(ticket): source.value_of(ticket) for ticket in tickets})


def priority_at(source: TicketSource, pk: Any, value: Any) -> Priority | None:
    """Return the priority of the ticket with this key when it has, or had, a host value."""
    key = key_text(source.model, pk)
    return _meanings(source, {key: value})[key]


@defaults_called_once()
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
    """Return the overrides and the applied predictions of a model's tickets."""
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
    """Whether it is a suggestion that waits for a person's decision."""


def standings(instances: Iterable[models.Model]) -> dict[str, Standing]:
    """Return the newest prediction of each ticket and its standing, by `key_text`.

    A suggestion is open when it is the newest prediction, differs from the ticket's priority, and
    nobody has decided since. Tickets without a prediction, and those whose prediction is held
    back, are left out. The tickets must be of one model. Takes one query,
    `priorities_of`'s, and one where a prediction is of the audit slice.
    """
    tickets = {ticket_key(ticket): ticket for ticket in instances}
    if not tickets:
        return {}
    priorities = priorities_of(tickets.values())
    decided = models.Exists(Override.objects.filter(prediction=models.OuterRef("pk")))
    latest = Prediction.objects.annotate(is_decided=decided).latest_for(tickets.values())
    held_back = audit.held_back(latest.values())
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
        if prediction not in held_back
    }


def open_suggestions(instances: Iterable[models.Model]) -> dict[str, Prediction]:
    """Return the suggestions that wait for a person's decision, by `key_text`."""
    found = standings(instances)
    return {key: standing.prediction for key, standing in found.items() if standing.is_open}
