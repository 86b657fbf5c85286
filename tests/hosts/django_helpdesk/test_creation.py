"""Every route by which this host gets a ticket ends with the predicted priority, once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.urls import reverse
from routes import CREATION, TITLE, Desk, open_by_public_form, post_to_api, signed_in

import helpdesk
import ticket_priority
from helpdesk.models import FollowUp, Ticket, TicketChange
from ticket_priority.models import Prediction
from ticket_priority.predictions import outbox

pytestmark = pytest.mark.django_db(transaction=True)

URGENT, MINOR, USUAL = "outage fire breach down", "typo font colour wish", "invoice refund login"
UNTOLD = ["admin"]
"""Routes on which the host itself writes no follow-up."""

Open = Callable[[Desk, str], Ticket]


@pytest.fixture(params=CREATION)
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def history(ticket: Ticket) -> list[FollowUp]:
    """The follow-ups as the ticket's page shows them."""
    return list(ticket.followup_set.all())


def told(followup: FollowUp) -> list[tuple[str, str | None, str | None]]:
    return list(followup.ticketchange_set.values_list("field", "old_value", "new_value"))


def assert_told_once(ticket: Ticket, route: str, value: int) -> None:
    *host, audit = history(ticket)
    assert [followup.public for followup in host] == ([] if route in UNTOLD else [True])
    assert (audit.title, audit.public, audit.user) == ("Priority set automatically", False, None)
    assert audit.email_recipients == []
    assert told(audit) == [("Priority", "3", str(value))]
    assert TicketChange.objects.count() == 1


def test_both_packages_are_the_installed_ones() -> None:
    assert "site-packages" in helpdesk.__file__
    assert "site-packages" in ticket_priority.__file__


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize(("text", "value"), [(URGENT, 2), (MINOR, 4)])
def test_sync(desk: Desk, route: str, text: str, value: int) -> None:
    ticket = CREATION[route](desk, text)
    ticket.refresh_from_db()
    assert ticket.priority == value
    assert Prediction.objects.for_instance(ticket).get().state == Prediction.State.APPLIED
    assert_told_once(ticket, route, value)


def test_sync_says_nothing_where_nothing_changed(desk: Desk, route: str) -> None:
    ticket = CREATION[route](desk, USUAL)
    assert ticket.priority == 3
    assert Prediction.objects.for_instance(ticket).get().state == Prediction.State.APPLIED
    assert all(followup.public for followup in history(ticket))
    assert not TicketChange.objects.exists()


@pytest.mark.usefixtures("atomic_requests")
def test_async_by_a_worker_after_the_request(
    desk: Desk, route: str, configure: Callable[..., None]
) -> None:
    configure(MODE="async")
    ticket = CREATION[route](desk, URGENT)
    assert ticket.priority == 3
    Ticket.objects.filter(pk=ticket.pk).update(resolution="Edited meanwhile")
    assert outbox.drain() == 1
    ticket.refresh_from_db()
    assert (ticket.priority, ticket.resolution) == (2, "Edited meanwhile")
    assert Prediction.objects.for_instance(ticket).get().state == Prediction.State.APPLIED
    assert_told_once(ticket, route, 2)


@pytest.mark.usefixtures("atomic_requests", "without_queue")
def test_async_while_the_host_still_saves_the_ticket(
    desk: Desk, route: str, configure: Callable[..., None]
) -> None:
    configure(MODE="async")
    ticket = CREATION[route](desk, URGENT)
    ticket.refresh_from_db()
    assert ticket.priority == 2
    assert Prediction.objects.for_instance(ticket).get().state == Prediction.State.APPLIED
    assert_told_once(ticket, route, 2)


def test_a_suggestion_is_no_change(desk: Desk, route: str, configure: Callable[..., None]) -> None:
    configure(MODE="suggest")
    ticket = CREATION[route](desk, URGENT)
    outbox.drain()
    ticket.refresh_from_db()
    assert ticket.priority == 3
    assert Prediction.objects.get().state == Prediction.State.SUGGESTED
    assert not TicketChange.objects.exists()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_nobody_is_mailed_but_by_the_host(
    desk: Desk, route: str, mode: str, configure: Callable[..., None]
) -> None:
    call_command("loaddata", "emailtemplate.json", verbosity=0)
    with ticket_priority.muted():
        CREATION[route](desk, URGENT)
    by_host = [message.to for message in mail.outbox]
    mail.outbox.clear()
    configure(MODE=mode)
    CREATION[route](desk, URGENT)
    outbox.drain()
    assert [message.to for message in mail.outbox] == by_host
    assert bool(by_host) == (route not in UNTOLD)


def test_the_history_speaks_the_language_of_the_host(desk: Desk, route: str, settings: Any) -> None:
    settings.LANGUAGE_CODE = "de"
    ticket = CREATION[route](desk, URGENT)
    audit = history(ticket)[-1]
    assert audit.title == "Priorität automatisch gesetzt"
    assert told(audit) == [("Priorität", "3", "2")]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_bare_insert_is_told_at_once(
    desk: Desk, mode: str, configure: Callable[..., None]
) -> None:
    configure(MODE=mode)
    ticket = Ticket.objects.create(queue=desk.queue, title=TITLE, description=URGENT)
    outbox.drain()
    ticket.refresh_from_db()
    assert ticket.priority == 2
    assert [told(followup) for followup in history(ticket)] == [[("Priority", "3", "2")]]


@pytest.mark.parametrize("priority", [1, 5])
def test_what_a_customer_chose_stays(desk: Desk, priority: int) -> None:
    ticket = open_by_public_form(desk, URGENT, priority)
    assert ticket.priority == priority
    assert not Prediction.objects.exists()
    assert len(history(ticket)) == 1


def test_the_api_answers_with_the_predicted_priority_and_the_history_in_order(desk: Desk) -> None:
    body = post_to_api(desk, URGENT)
    assert body["priority"] == 2
    titles = [followup["title"] for followup in body["followup_set"]]
    assert titles == ["Ticket Opened", "Priority set automatically"]


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the host posts of new tickets, to a server that listens."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv(
        "HELPDESK_NEW_TICKET_WEBHOOK_URLS", f"http://127.0.0.1:{server.server_port}/"
    )
    yield received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("atomic_requests")
def test_webhooks_carry_the_predicted_priority(desk: Desk, webhook: list[dict[str, Any]]) -> None:
    routes = [route for route in CREATION if route not in UNTOLD]
    for route in routes:
        CREATION[route](desk, URGENT)
    assert [call["ticket"]["priority"] for call in webhook] == [2] * len(routes)
    for call in webhook:
        assert call["ticket"]["followup_set"][0]["public"], "the opening comes first"


def test_the_public_form_can_do_without_the_priority(desk: Desk, settings: Any) -> None:
    assert b'name="priority"' in signed_in(None).get(reverse("helpdesk:home")).content
    settings.HELPDESK_PUBLIC_TICKET_PRIORITY = 5
    assert b'name="priority"' not in signed_in(None).get(reverse("helpdesk:home")).content
    ticket = open_by_public_form(desk, URGENT, priority=None)
    assert ticket.priority == 2
    assert told(history(ticket)[-1]) == [("Priority", "5", "2")]


def test_a_ticket_is_saved_whatever_the_history_does(
    desk: Desk, route: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no history today")

    monkeypatch.setattr(
        "ticket_priority.adapters.django_helpdesk.DjangoHelpdeskSource.write_history", fail
    )
    ticket = CREATION[route](desk, URGENT)
    assert ticket.priority == 2
    assert all(followup.public for followup in history(ticket))
    assert "no history today" in caplog.text


@pytest.mark.usefixtures("atomic_requests")
def test_a_ticket_is_saved_whatever_the_adapter_does(
    desk: Desk, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no adapter today")

    source = "ticket_priority.adapters.django_helpdesk.DjangoHelpdeskSource"
    for name in ("meaning_of", "is_unset", "value_of", "put_first", "write_history"):
        monkeypatch.setattr(f"{source}.{name}", fail)
    monkeypatch.setattr(f"{source}.host_field", property(fail))
    ticket = CREATION[route](desk, URGENT)
    ticket.refresh_from_db()
    assert (ticket.title, ticket.priority) == (TITLE, 3)
    assert all(followup.public for followup in history(ticket))
