"""The ways into this helpdesk, and the ways to change a priority, as people take them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.forms.models import model_to_dict
from django.test import Client
from django.urls import reverse

from helpdesk.models import Queue, Ticket

CUSTOMER = "customer@example.com"
TITLE = "Hello again"


@dataclass(frozen=True, slots=True)
class Desk:
    """A helpdesk with one public queue, an agent and a superuser, and its mailbox."""

    queue: Queue
    agent: User
    superuser: User
    mailbox: Path


def set_up_desk(mailbox: Path) -> Desk:
    mailbox.mkdir()
    queue = Queue.objects.create(
        title="Support",
        slug="support",
        email_address="support@example.com",
        allow_public_submission=True,
        allow_email_submission=True,
        email_box_type="local",
        email_box_local_dir=str(mailbox),
        email_box_interval=0,
        new_ticket_cc="watch@example.com",
        updated_ticket_cc="watch@example.com",
    )
    agent = User.objects.create_user("agent", "agent@example.com", "x", is_staff=True)
    superuser = User.objects.create_superuser("root", "root@example.com", "x")
    return Desk(queue, agent, superuser, mailbox)


def signed_in(user: User | None) -> Client:
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


def newest() -> Ticket:
    return Ticket.objects.order_by("pk").last()


def open_by_public_form(desk: Desk, text: str, priority: int | None = 3) -> Ticket:
    values = {"queue": desk.queue.pk, "title": TITLE, "body": text, "submitter_email": CUSTOMER}
    if priority is not None:
        values["priority"] = str(priority)
    answer = Client().post(reverse("helpdesk:home"), values)
    assert answer.status_code == 302, answer.context["form"].errors
    return newest()


def open_by_staff_form(desk: Desk, text: str, priority: int = 3) -> Ticket:
    answer = signed_in(desk.agent).post(
        reverse("helpdesk:submit"),
        {
            "queue": desk.queue.pk,
            "title": TITLE,
            "body": text,
            "submitter_email": CUSTOMER,
            "priority": str(priority),
        },
    )
    assert answer.status_code == 302, answer.context["form"].errors
    return newest()


def post_to_api(desk: Desk, text: str, **values: Any) -> dict[str, Any]:
    answer = signed_in(desk.agent).post(
        "/api/tickets/",
        {
            "queue": desk.queue.pk,
            "title": TITLE,
            "description": text,
            "submitter_email": CUSTOMER,
            "priority": 3,
            **values,
        },
        content_type="application/json",
    )
    assert answer.status_code == 201, answer.content
    return answer.json()


def open_by_api(desk: Desk, text: str) -> Ticket:
    return Ticket.objects.get(pk=post_to_api(desk, text)["id"])


def open_by_mail(desk: Desk, text: str, headers: str = "") -> Ticket:
    (desk.mailbox / "message.eml").write_text(
        f"From: {CUSTOMER}\nTo: {desk.queue.email_address}\nSubject: {TITLE}\n"
        f"Message-Id: <1@example.com>\n{headers}Content-Type: text/plain\n\n{text}\n"
    )
    call_command("get_email", quiet=True)
    assert not list(desk.mailbox.iterdir()), "the host did not take the message"
    return newest()


def open_by_admin(desk: Desk, text: str, priority: int = 3) -> Ticket:
    client, page = signed_in(desk.superuser), reverse("admin:helpdesk_ticket_add")
    form = client.get(page).context["adminform"].form
    values = {name: "" if value is None else value for name, value in initial_of(form).items()}
    values |= {"title": TITLE, "queue": desk.queue.pk, "description": text, "priority": priority}
    answer = client.post(page, values)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    return newest()


def initial_of(form: Any) -> dict[str, Any]:
    """What a browser would post of a form that nobody touched."""
    return {
        name: field.widget.format_value(form.get_initial_for_field(field, name))
        if not isinstance(form.get_initial_for_field(field, name), bool)
        else ("on" if form.get_initial_for_field(field, name) else "")
        for name, field in form.fields.items()
    }


CREATION = {
    "public form": open_by_public_form,
    "staff form": open_by_staff_form,
    "api": open_by_api,
    "mail": open_by_mail,
    "admin": open_by_admin,
}


def update_values(ticket: Ticket) -> dict[str, Any]:
    """What the update form on the ticket's page posts where nobody touches a thing."""
    return {
        "title": ticket.title,
        "queue": ticket.queue_id,
        "priority": ticket.priority,
        "new_status": ticket.status,
        "owner": ticket.assigned_to_id or 0,
        "comment": "",
        "submitter_email": ticket.submitter_email or "",
    }


def post_update(ticket: Ticket, user: User | None, **values: Any) -> None:
    """Post the update form as the page showed `ticket`, which may be long ago."""
    page = reverse("helpdesk:update", args=[ticket.pk])
    answer = signed_in(user).post(page, update_values(ticket) | values)
    assert answer.status_code == 302, answer.context["form"].errors


def post_edit(ticket: Ticket, user: User, **values: Any) -> None:
    """Post the edit form as the page showed `ticket`."""
    shown = {
        name: getattr(ticket, name)
        for name in ("title", "submitter_email", "description", "priority", "secret_key")
    }
    page = reverse("helpdesk:edit", args=[ticket.pk])
    answer = signed_in(user).post(page, {"queue": ticket.queue_id, **shown, **values})
    assert answer.status_code == 302, answer.context["form"].errors


def post_admin_change(ticket: Ticket, user: User, **values: Any) -> None:
    """Post the admin's form as the page showed `ticket`."""
    shown = {key: value for key, value in model_to_dict(ticket).items() if value is not None}
    page = reverse("admin:helpdesk_ticket_change", args=[ticket.pk])
    answer = signed_in(user).post(page, shown | {"on_hold": ""} | values)
    assert answer.status_code == 302, answer.context["adminform"].form.errors


def patch(ticket: Ticket, user: User, **values: Any) -> dict[str, Any]:
    answer = signed_in(user).patch(
        f"/api/tickets/{ticket.pk}/", values, content_type="application/json"
    )
    assert answer.status_code == 200, answer.content
    return answer.json()
