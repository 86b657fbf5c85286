"""The SLA deadlines that escalated-django derives from a ticket's priority."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

_ATTACHED_WITHIN: Final = timedelta(minutes=1)
"""How long after a ticket's creation the host may set its first deadlines."""


def move_deadlines(pk: Any, before: str, after: str, using: str) -> None:
    """Give a ticket the deadlines that it would have got at its creation.

    A deadline stays if it has been met or missed, if it is not the one that the host derives from
    the former priority, or if the new one would have passed already.
    """
    from escalated.models import Ticket

    rows = Ticket._base_manager.using(using).filter(pk=pk)
    ticket = rows.select_related("sla_policy").first()
    if ticket is None or ticket.sla_policy is None:
        return
    policy, moved = ticket.sla_policy, {}
    if ticket.first_response_at is None and not ticket.sla_first_response_breached:
        hours = (policy.get_first_response_hours(value) for value in (before, after))
        moved["first_response_due_at"] = _moved(ticket, ticket.first_response_due_at, *hours)
    is_done = ticket.resolved_at is not None or ticket.closed_at is not None
    if not is_done and not ticket.sla_resolution_breached:
        hours = (policy.get_resolution_hours(value) for value in (before, after))
        moved["resolution_due_at"] = _moved(ticket, ticket.resolution_due_at, *hours)
    former = {name: getattr(ticket, name) for name in moved}
    if moved != former:
        rows.filter(**former).update(**moved)


def _moved(
    ticket: Any, due: datetime | None, hours_before: float | None, hours_after: float | None
) -> datetime | None:
    before, after = (_due(ticket, hours) for hours in (hours_before, hours_after))
    if due is None or before is None:
        is_hosts, moved = due is before, after
    else:
        is_hosts = abs(due - before) < _ATTACHED_WITHIN
        # Moved by the difference, because the host counts from when it attached the policy.
        moved = None if after is None else due + (after - before)
    is_past = moved is not None and moved <= timezone.now()
    return due if is_past or not is_hosts else moved


def _due(ticket: Any, hours: float | None) -> datetime | None:
    from escalated.services.sla_service import SlaService

    if hours is None:
        return None
    if ticket.sla_policy.business_hours_only:
        due: datetime = SlaService._add_business_hours(ticket.created_at, hours)
        return due
    opened: datetime = ticket.created_at
    return opened + timedelta(hours=hours)
