"""Who may do what: the configured classes for the service, the source's own word for tickets."""

from __future__ import annotations

from typing import Any

from django.utils.module_loading import import_string
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView

from ticket_priority.conf import get_settings
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import all_sources


def configured_permissions() -> list[Any]:
    """Return instances of API_PERMISSION_CLASSES."""
    return [import_string(path)() for path in get_settings().api.permission_classes]


class SeesTickets(IsAuthenticated):
    """Lets in whoever may see tickets of one source at least. Rows are scoped by the views."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return super().has_permission(request, view) and any(
            may_see_some(source, request.user) for source in all_sources()
        )


def may_see_some(source: TicketSource, user: Any) -> bool:
    """Say whether any ticket could be visible; a source with `visible_to` decides by ticket."""
    return source.visible_to is not None or source.sees_all(user)
