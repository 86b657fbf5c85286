"""The ticket list: columns, filters, and one query for the predictions of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import models
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ticket_priority.badges import percent, priority_badge
from ticket_priority.models import Override, Prediction
from ticket_priority.models.rows import TicketRowQuerySet
from ticket_priority.predictions import audit
from ticket_priority.predictions.standings import decisive_rows, priorities_of
from ticket_priority.priorities import Priority
from ticket_priority.sources.keys import ticket_key
from ticket_priority.sources.notes import Notes
from ticket_priority.sources.registry import get_source

UNSET: Final = "unset"
NO_PREDICTION: Final = "none"
LOW: Final = "low"
LOW_UNREVIEWED: Final = "low-unreviewed"

Tickets = models.QuerySet[Any]

_ON_PAGE: Final = Notes[tuple[Prediction | None, Priority | None]]()


class PredictionsOnPage(ChangeList):
    """Fetch the newest prediction and the priority of every ticket of the page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # The queryset caches the rows, so the page shows these objects.
        tickets = list(self.result_list)
        latest, priorities = Prediction.objects.latest_for(tickets), priorities_of(tickets)
        held_back = audit.held_back(latest.values())
        for ticket in tickets:
            prediction, priority = latest.get(ticket_key(ticket)), priorities[ticket_key(ticket)]
            shown = None if prediction in held_back else prediction
            _ON_PAGE.put(ticket, (shown, priority))


@dataclass(frozen=True)
class PriorityColumn:
    """A badge, sorted by the host's column."""

    admin_order_field: str

    short_description: ClassVar[Any] = _("priority")
    __name__: ClassVar[str] = "ticket_priority"

    def __call__(self, ticket: models.Model) -> SafeString:
        return priority_badge(_priority_on_page(ticket))


@dataclass(frozen=True)
class PredictionColumn:
    """Confidence and state of the newest prediction, and its class where the ticket's differs."""

    short_description: ClassVar[Any] = _("prediction")
    __name__: ClassVar[str] = "ticket_priority_prediction"

    def __call__(self, ticket: models.Model) -> SafeString | str:
        prediction, priority = _ON_PAGE.get(ticket) or (None, None)
        if prediction is None:
            return "–"
        differs = prediction.priority != priority
        parts: list[Any] = []
        if prediction.priority is not None:
            parts += [priority_badge(prediction.priority)] if differs else []
            parts.append(percent(prediction.confidence))
        explained = prediction.reason != Prediction.Reason.OK
        state = format_html(
            '<span class="tp-state tp-state--{}"{}>{}</span>',
            prediction.state,
            format_html(' title="{}"', prediction.get_reason_display()) if explained else "",
            prediction.get_state_display(),
        )
        return format_html_join(" ", "{}", ((part,) for part in [*parts, state]))


class TicketFilter(admin.SimpleListFilter):
    """Narrow tickets by one of the choices; any other value is refused."""

    def queryset(self, request: HttpRequest, queryset: Tickets) -> Tickets | None:
        wanted = self.value()
        if wanted is None:
            return None
        if wanted not in {str(key) for key, _label in self.lookup_choices}:
            raise IncorrectLookupParameters
        return self.chosen(queryset, wanted)

    def chosen(self, tickets: Tickets, wanted: str) -> Tickets:
        """Return the tickets of a choice."""
        raise NotImplementedError


class PriorityFilter(TicketFilter):
    """By priority, whatever values the host's column has."""

    title = _("priority")
    parameter_name = "ticket_priority"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        self.source = get_source(model)
        super().__init__(request, params, model, model_admin)

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, Any]]:
        return [
            *((priority.slug, priority.label) for priority in reversed(Priority)),
            (UNSET, _("Unset")),
        ]

    def chosen(self, tickets: Tickets, wanted: str) -> Tickets:
        if wanted == UNSET:
            undecided = tickets.filter(self.source.unset_condition())
            return undecided.exclude(self._decided(tickets, *Priority))
        priority = Priority.from_slug(wanted)
        decided = self._decided(tickets, priority)
        return tickets.filter(self.source.condition_of(priority) | decided)

    def _decided(self, tickets: Tickets, *priorities: Priority) -> models.Q:
        """Match values that usually mean unset, on tickets where a person or model chose them."""
        values = self.source.values_in_doubt(*priorities)
        if not values:
            return models.Q(pk__in=[])
        decided = models.Q()
        for rows in decisive_rows(tickets.model):
            decided |= models.Q(pk__in=_keys(rows, tickets))
        return models.Q(**{f"{self.source.host_field.attname}__in": values}) & decided


class PredictionStateFilter(TicketFilter):
    """By the state of the newest prediction."""

    title = _("prediction")
    parameter_name = "ticket_priority_state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, Any]]:
        return [*Prediction.State.choices, (NO_PREDICTION, _("no prediction"))]

    def chosen(self, tickets: Tickets, wanted: str) -> Tickets:
        predictions = Prediction.objects.for_model(tickets.model).shown()
        if wanted == NO_PREDICTION:
            return tickets.exclude(pk__in=_keys(predictions, tickets))
        newest = predictions.newest().filter(state=wanted)
        return tickets.filter(pk__in=_keys(newest, tickets))


class ConfidenceFilter(TicketFilter):
    """By a confidence of the newest prediction below the admin's `low_confidence`."""

    title = _("confidence")
    parameter_name = "ticket_priority_confidence"

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        self.limit: float = model_admin.low_confidence
        super().__init__(request, params, model, model_admin)

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, Any]]:
        limit = {"limit": percent(self.limit)}
        return [
            (LOW, _("below %(limit)s") % limit),
            (LOW_UNREVIEWED, _("below %(limit)s, not reviewed") % limit),
        ]

    def chosen(self, tickets: Tickets, wanted: str) -> Tickets:
        model = tickets.model
        newest = Prediction.objects.for_model(model).shown().newest()
        unsure = newest.filter(confidence__lt=self.limit)
        if wanted == LOW_UNREVIEWED:
            reviewed = Override.objects.for_model(model).values("object_id")
            unsure = unsure.exclude(object_id__in=reviewed)
        return tickets.filter(pk__in=_keys(unsure, tickets))


def _priority_on_page(ticket: models.Model) -> Priority | None:
    on_page = _ON_PAGE.get(ticket)
    return on_page[1] if on_page else priorities_of([ticket])[ticket_key(ticket)]


def _keys(rows: TicketRowQuerySet, tickets: Tickets) -> Any:
    return rows.ticket_keys(tickets.model, tickets.db)
