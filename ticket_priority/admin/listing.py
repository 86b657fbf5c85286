"""The ticket list: columns, filters, and one query for the predictions of a page."""

from __future__ import annotations

from collections import Counter
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
from ticket_priority.models import Override, Prediction, PredictionQuerySet
from ticket_priority.models.rows import about, has_row
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

    def get_facet_queryset(self, changelist: Any) -> dict[str, int]:
        """Return the number of tickets of each choice; Django would take a subquery for each."""
        tickets = changelist.queryset
        if self.value() is not None:
            tickets = changelist.get_queryset(self.request, self.expected_parameters())
        numbers = self.numbers(tickets)
        return {
            f"{place}__c": numbers[str(key)]
            for place, (key, _label) in enumerate(self.lookup_choices)
        }

    def chosen(self, tickets: Tickets, wanted: str) -> Tickets:
        """Return the tickets of a choice."""
        raise NotImplementedError

    def numbers(self, tickets: Tickets) -> Counter[str]:
        """Count the tickets of each choice."""
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
            decided |= has_row(rows, tickets)
        return models.Q(**{f"{self.source.host_field.attname}__in": values}) & decided

    def numbers(self, tickets: Tickets) -> Counter[str]:
        found: Counter[str] = Counter()
        column = self.source.host_field.attname
        in_doubt = tickets.filter(self._decided(tickets, *Priority))
        for decided, rows in ((False, tickets), (True, in_doubt)):
            groups = rows.order_by().values_list(column).annotate(models.Count("pk"))
            for value, number in groups:
                meaning = self.source.to_priority(value)
                if decided:
                    found[UNSET] -= number
                    meaning = self.source.meaning_of(value)
                if meaning is not None:
                    found[meaning.slug] += number
                elif self.source.is_unset(value):
                    found[UNSET] += number
        return found


class PredictionStateFilter(TicketFilter):
    """By the state of the newest prediction."""

    title = _("prediction")
    parameter_name = "ticket_priority_state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, Any]]:
        return [*Prediction.State.choices, (NO_PREDICTION, _("no prediction"))]

    def chosen(self, tickets: Tickets, wanted: str) -> Tickets:
        predictions = Prediction.objects.for_model(tickets.model).shown()
        if wanted == NO_PREDICTION:
            return tickets.exclude(has_row(predictions.marked_newest(), tickets))
        newest = predictions.marked_newest().filter(state=wanted)
        return tickets.filter(has_row(newest, tickets))

    def numbers(self, tickets: Tickets) -> Counter[str]:
        newest = Prediction.objects.filter(about(tickets, Prediction.objects.db)).shown()
        groups = newest.marked_newest().order_by().values_list("state")
        found = Counter(dict(groups.annotate(models.Count("pk"))))
        found[NO_PREDICTION] = tickets.count() - found.total()
        return found


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
        unsure = self._unsure(Prediction.objects.for_model(tickets.model))
        if wanted == LOW_UNREVIEWED:
            unsure = unsure.exclude(_REVIEWED)
        return tickets.filter(has_row(unsure, tickets))

    def _unsure(self, predictions: PredictionQuerySet) -> PredictionQuerySet:
        return predictions.shown().marked_newest().filter(confidence__lt=self.limit)

    def numbers(self, tickets: Tickets) -> Counter[str]:
        unsure = self._unsure(Prediction.objects.filter(about(tickets, Prediction.objects.db)))
        unreviewed = models.Count("pk", filter=~_REVIEWED)
        found = unsure.order_by().aggregate(low=models.Count("pk"), unreviewed=unreviewed)
        return Counter({LOW: found["low"], LOW_UNREVIEWED: found["unreviewed"]})


_REVIEWED: Final = models.Q(
    models.Exists(
        Override.objects.filter(
            content_type=models.OuterRef("content_type"), object_id=models.OuterRef("object_id")
        ).order_by()
    )
)


def _priority_on_page(ticket: models.Model) -> Priority | None:
    on_page = _ON_PAGE.get(ticket)
    return on_page[1] if on_page else priorities_of([ticket])[ticket_key(ticket)]
