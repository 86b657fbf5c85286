"""The routes by which a ticket gets into escalated-django. Each returns the ticket it made."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from escalated import guest_access
from escalated.mail.inbound_message import InboundMessage
from escalated.models import ApiToken, EscalatedSetting, GuestVerification, Ticket
from escalated.services.chat_session_service import ChatSessionService
from escalated.services.inbound_email_service import InboundEmailService
from escalated.services.ticket_service import TicketService

OUTAGE = "outage fire breach down"
"""High, to the toy model."""
TYPO = "typo font colour wish"
"""Low."""
GUEST = "guest@example.com"


def newest() -> Ticket:
    return Ticket.unrestricted.order_by("pk").last()


def by_service(text: str = OUTAGE, **data: Any) -> Ticket:
    user, _ = User.objects.get_or_create(username="requester", email="requester@example.com")
    return TicketService().create(user, {"subject": text, "description": text, **data})


def by_customer_page(text: str = OUTAGE, **data: Any) -> Ticket:
    client = Client()
    user, _ = User.objects.get_or_create(username="requester", email="requester@example.com")
    client.force_login(user)
    # The page preselects the default and posts it.
    form = {"subject": text, "description": text, "priority": "medium", **data}
    answer = client.post(reverse("escalated:customer_ticket_store"), form)
    assert answer.status_code == 302, answer.content
    return newest()


def by_api(text: str = OUTAGE, **data: Any) -> Ticket:
    user, _ = User.objects.get_or_create(username="api", email="api@example.com")
    token = ApiToken.create_token(user, "test")["plain_text_token"]
    answer = Client().post(
        "/support/api/v1/tickets/create/",
        json.dumps({"subject": text, "description": text, **data}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 201, answer.content
    return newest()


def by_guest_page(text: str = OUTAGE, **data: Any) -> Ticket:
    form = {"guest_name": "Guest", "guest_email": GUEST, "subject": text, "description": text}
    answer = Client().post(
        reverse("escalated:guest_ticket_store"), {**form, **proof("ticket"), **data}
    )
    assert answer.status_code == 302, answer.content
    return newest()


def by_widget(text: str = OUTAGE, **data: Any) -> Ticket:
    EscalatedSetting.set("widget_enabled", "1")
    body = {"name": "Guest", "email": GUEST, "subject": text, "description": text}
    answer = Client().post(
        reverse("escalated:widget_contract_tickets"),
        json.dumps({**body, **proof("ticket"), **data}),
        content_type="application/json",
    )
    assert answer.status_code == 201, answer.content
    return newest()


def by_guests_mail(text: str = OUTAGE, *, sender: str = GUEST) -> Ticket:
    message = InboundMessage(
        from_email=sender,
        from_name="Guest",
        to_email="support@example.com",
        subject=text,
        body_text=text,
        body_html=None,
        message_id=f"<{uuid.uuid4()}@example.com>",
    )
    inbound = InboundEmailService.process(message, adapter_name="test")
    assert inbound.status == "processed", inbound.error_message
    return newest()


def by_users_mail(text: str = OUTAGE) -> Ticket:
    User.objects.get_or_create(username="requester", email="requester@example.com")
    return by_guests_mail(text, sender="requester@example.com")


def by_chat(text: str | None = OUTAGE) -> Ticket:
    ticket, _ = ChatSessionService().start_chat(name="Guest", email=GUEST, subject=text)
    return ticket


ROUTES: tuple[Callable[..., Ticket], ...] = (
    by_service,
    by_customer_page,
    by_api,
    by_guest_page,
    by_widget,
    by_guests_mail,
    by_users_mail,
    by_chat,
)


def proof(purpose: str) -> dict[str, str]:
    """A guest's code, as if it had been read in the mailbox."""
    key, code = uuid.uuid4(), "12345678"
    GuestVerification.objects.create(
        id=key,
        email_digest=guest_access.email_digest(GUEST),
        purpose=purpose,
        code_hash=guest_access.digest(f"{key}:{code}"),
        expires_at=timezone.now() + timedelta(minutes=10),
    )
    return {"verification_id": str(key), "verification_code": code}


def hours_until(due: Any, ticket: Ticket) -> float | None:
    """Hours from the ticket's creation to a deadline, to the minute."""
    return None if due is None else round((due - ticket.created_at).total_seconds() / 3600, 1)


def deadlines(ticket: Ticket) -> tuple[float | None, float | None]:
    """Hours to the first response and to the resolution, as they stand in the row."""
    row = Ticket.unrestricted.get(pk=ticket.pk)
    return hours_until(row.first_response_due_at, row), hours_until(row.resolution_due_at, row)


def log(ticket: Ticket, kind: str) -> list[dict[str, Any]]:
    """Properties of the ticket's activities of one kind, oldest first."""
    rows = ticket.activities.filter(type=kind).order_by("pk")
    return list(rows.values_list("properties", flat=True))
