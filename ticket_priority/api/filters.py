from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import django_filters
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from django_filters.rest_framework import DjangoFilterBackend, FilterSet, IsoDateTimeFilter
from rest_framework.exceptions import ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.views import APIView

from ticket_priority.exceptions import SourceError
from ticket_priority.models import Override, Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.priorities import Priority
from ticket_priority.sources.keys import LONGEST
from ticket_priority.sources.registry import find_source

Rows = models.QuerySet[Any]

_PRIORITIES: Final = [(priority.slug, priority.label) for priority in Priority]


def _new_year(year: int) -> datetime:
    return datetime(year, 1, 1, tzinfo=UTC if settings.USE_TZ else None)


# Times near the ends of the calendar overflow when a database converts their time zone.
_MOMENTS: Final = [
    MinValueValidator(partial(_new_year, 1970)),
    MaxValueValidator(partial(_new_year, 2999)),
]


class TicketRowFilter(FilterSet):  # type: ignore[misc]
    """The query parameters of every list of rows about tickets."""

    source = django_filters.CharFilter(
        method="of_source", label=_("Source, such as helpdesk.Ticket, in any case")
    )
    object_id = django_filters.CharFilter(max_length=LONGEST, label=_("The ticket's primary key"))
    created_after = IsoDateTimeFilter(
        field_name="created_at", lookup_expr="gte", validators=_MOMENTS, label=_("Created from")
    )
    created_before = IsoDateTimeFilter(
        field_name="created_at", lookup_expr="lt", validators=_MOMENTS, label=_("Created before")
    )

    def of_source(self, rows: Rows, name: str, value: str) -> Rows:
        try:
            source = find_source(value)
        except SourceError:
            raise ValidationError({name: [_("There is no such ticket source.")]}) from None
        return rows.filter(content_type=content_type_of(source.model))

    def of_priority(self, rows: Rows, name: str, value: str) -> Rows:
        return rows.filter(**{name: Priority.from_slug(value)})


class PredictionFilter(TicketRowFilter):
    """The query parameters of the list of predictions."""

    state = django_filters.ChoiceFilter(choices=Prediction.State.choices)
    reason = django_filters.ChoiceFilter(choices=Prediction.Reason.choices)
    priority = django_filters.ChoiceFilter(choices=_PRIORITIES, method="of_priority")
    model_version = django_filters.CharFilter(
        field_name="model_version__name", max_length=100, label=_("Name of the model version")
    )
    min_confidence = django_filters.NumberFilter(
        field_name="confidence", lookup_expr="gte", min_value=0, max_value=1
    )
    max_confidence = django_filters.NumberFilter(
        field_name="confidence", lookup_expr="lte", min_value=0, max_value=1
    )

    class Meta:
        model = Prediction
        fields: list[str] = []


class OverrideFilter(TicketRowFilter):
    """The query parameters of the list of overrides."""

    to_priority = django_filters.ChoiceFilter(choices=_PRIORITIES, method="of_priority")
    from_priority = django_filters.ChoiceFilter(choices=_PRIORITIES, method="of_priority")
    user = django_filters.CharFilter(method="by_user", max_length=150, label=_("User name"))

    class Meta:
        model = Override
        fields: list[str] = []

    def by_user(self, rows: Rows, name: str, value: str) -> Rows:
        return rows.filter(**{f"user__{get_user_model().USERNAME_FIELD}": value})


class FilterBackend(DjangoFilterBackend):  # type: ignore[misc]
    """Show no form in the browsable API where django_filters is not installed."""

    def to_html(self, request: Request, queryset: Rows, view: APIView) -> str | None:
        if not apps.is_installed("django_filters"):
            return ""
        html: str | None = super().to_html(request, queryset, view)
        return html


class StableOrdering(OrderingFilter):
    """`?ordering=`, then the newest first, so that pages do not overlap."""

    ordering_param = "ordering"

    def filter_queryset(self, request: Request, queryset: Rows, view: APIView) -> Rows:
        chosen = self.get_ordering(request, queryset, view) or ()
        return queryset.order_by(*chosen, "-pk")
