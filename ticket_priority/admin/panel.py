"""The predictions and decisions that the page of a ticket shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from django.db import models

from ticket_priority.models import Override, Prediction
from ticket_priority.predictions import audit
from ticket_priority.predictions.standings import open_suggestions, priorities_of
from ticket_priority.priorities import Priority
from ticket_priority.sources.keys import ticket_key
from ticket_priority.sources.registry import get_source

SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class TicketPanel:
    """A ticket's priority, its newest predictions and overrides, and its open suggestion.

    Predictions that are held back are left out.
    """

    priority: Priority | None
    predictions: list[Prediction]
    overrides: list[Override]
    suggestion: Prediction | None
    is_held_back: bool
    """Whether a prediction was left out, since nobody may see it yet."""

    @classmethod
    def of(cls, ticket: models.Model) -> Self:
        source = get_source(type(ticket))
        # Read again, since the form may have changed the priority of the instance.
        stored = source.queryset(ticket._state.db).get(pk=ticket.pk)
        predictions = Prediction.objects.for_instance(stored).with_version()
        overrides = Override.objects.for_instance(stored).select_related("user")
        newest = list(predictions[:SHOWN])
        held_back = audit.held_back(newest)
        return cls(
            priority=priorities_of([stored])[ticket_key(stored)],
            predictions=[row for row in newest if row not in held_back],
            overrides=list(overrides[:SHOWN]),
            suggestion=open_suggestions([stored]).get(ticket_key(ticket)),
            is_held_back=bool(held_back),
        )

    @property
    def latest(self) -> Prediction | None:
        return self.predictions[0] if self.predictions else None

    @property
    def is_automatic(self) -> bool:
        """Whether the model set the priority, and nobody has confirmed or changed it."""
        applied = next(
            (row for row in self.predictions if row.state == Prediction.State.APPLIED), None
        )
        return not self.overrides and applied is not None and applied.priority == self.priority
