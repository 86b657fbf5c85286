"""Permissions by the rules of the ticket sources."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.views import APIView

from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import all_sources


class SeesTickets(IsAuthenticated):
    """Allow users who may see tickets of at least one source; the views narrow the rows."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return super().has_permission(request, view) and any(
            may_see_some(source, request.user) for source in all_sources()
        )


def may_see_some(source: TicketSource, user: Any) -> bool:
    """Say whether any ticket could be visible; a source with `visible_to` decides by ticket."""
    return source.visible_to is not None or source.sees_all(user)
