"""A prediction that comes after the ticket: in the mode async, or once a model is active."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db.models.signals import pre_save
from django.test import modify_settings
from django.utils import timezone
from escalated.models import SlaPolicy, Ticket
from escalated.services.sla_service import SlaService
from escalated.services.ticket_service import TicketService
from escalated.signals import ticket_priority_changed
from escalated.workflow_models import Workflow, WorkflowLog
from routes import OUTAGE, ROUTES, TYPO, by_customer_page, by_service, deadlines, log
from toy_model import activate_toy

from ticket_priority.models import Override, Prediction
from ticket_priority.predictions import outbox

pytestmark = pytest.mark.django_db
route = pytest.mark.parametrize("create", ROUTES, ids=lambda route: route.__name__)


@pytest.fixture
def work(django_capture_on_commit_callbacks: Any) -> Callable[[], int]:
    """Be the worker: drain what is pending, and let the commits be heard of."""

    def work() -> int:
        with django_capture_on_commit_callbacks(execute=True):
            return outbox.drain()

    return work


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    """What the host's own signal says of changed priorities."""
    said: list[dict[str, Any]] = []

    def hear(sender: Any, **kwargs: Any) -> None:
        said.append(kwargs)

    ticket_priority_changed.connect(hear)
    yield said
    ticket_priority_changed.disconnect(hear)


@route
def test_the_worker_moves_the_deadlines_with_the_priority(
    create: Callable[..., Ticket], asynchronous: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    ticket = create(OUTAGE)
    assert (ticket.priority, deadlines(ticket)) == ("medium", (8, 24))
    assert work() == 1
    ticket.refresh_from_db()
    assert (ticket.priority, deadlines(ticket)) == ("high", (4, 10))
    assert log(ticket, "priority_changed") == [
        {"old_priority": "medium", "new_priority": "high", "predicted": True}
    ]
    assert ticket.activities.get(type="priority_changed").causer is None
    assert not Override.objects.exists()


def test_a_prediction_of_the_default_leaves_no_trace_in_the_log(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int], heard: list[dict[str, Any]]
) -> None:
    ticket = by_service("invoice refund slow delayed")
    assert work() == 1
    assert Prediction.objects.get().priority == 1
    assert log(ticket, "priority_changed") == []
    assert deadlines(ticket) == (8, 24)
    assert heard == []


def test_the_hosts_listeners_hear_of_it_as_of_an_escalation_rule(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int], heard: list[dict[str, Any]]
) -> None:
    ticket = by_service(OUTAGE)
    work()
    (said,) = heard
    assert (said["ticket"], said["user"]) == (ticket, None)
    assert (said["old_priority"], said["new_priority"]) == ("medium", "high")
    assert said["ticket"].first_response_due_at - ticket.created_at < timedelta(hours=4.1)


def test_a_workflow_of_the_host_runs_once_and_keeps_the_prediction(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int], agent: User
) -> None:
    Workflow.objects.create(
        name="High goes to the agent, as urgent",
        trigger_event="ticket.priority_changed",
        conditions={"all": [{"field": "priority", "operator": "equals", "value": "high"}]},
        actions=[
            {"type": "assign_agent", "value": str(agent.pk)},
            {"type": "change_priority", "value": "urgent"},
        ],
    )
    ticket = by_service(OUTAGE)
    work()
    ticket.refresh_from_db()
    assert (ticket.assigned_to, ticket.priority) == (agent, "urgent")
    assert WorkflowLog.objects.count() == 1
    assert not Override.objects.exists()


def test_a_workflow_at_creation_does_not_undo_the_prediction(
    transactional_db: None, asynchronous: None, sla: SlaPolicy
) -> None:
    """The host saves all of its new ticket after the worker has classified it."""
    Workflow.objects.create(
        name="Tag as incident",
        trigger_event="ticket.created",
        actions=[{"type": "set_type", "value": "incident"}],
    )
    with without_queue():
        ticket = by_service(OUTAGE)
    ticket.refresh_from_db()
    assert ticket.ticket_type == "incident"
    assert (ticket.priority, deadlines(ticket)) == ("high", (4, 10))


@pytest.mark.parametrize("create", [by_service, by_customer_page])
def test_a_worker_may_be_faster_than_the_host(
    create: Callable[..., Ticket],
    transactional_db: None,
    asynchronous: None,
    sla: SlaPolicy,
) -> None:
    """Classified at the commit, before the host sends its signal and attaches its policy."""
    with without_queue():
        ticket = create(OUTAGE)
    ticket.refresh_from_db()
    assert Prediction.objects.get().state == "applied"
    assert (ticket.priority, deadlines(ticket)) == ("high", (4, 10))


def test_a_worker_may_act_while_the_host_attaches_its_policy(
    asynchronous: None, sla: SlaPolicy
) -> None:
    def be_quick(update_fields: Collection[str] | None, **kwargs: Any) -> None:
        if update_fields and "sla_policy" in update_fields:
            outbox.drain()

    pre_save.connect(be_quick, sender=Ticket)
    try:
        ticket = by_service(OUTAGE)
    finally:
        pre_save.disconnect(be_quick, sender=Ticket)
    assert (ticket.priority, ticket.first_response_due_at) == (
        "high",
        Ticket.unrestricted.get().first_response_due_at,
    )
    assert deadlines(ticket) == (4, 10)


def without_queue() -> Any:
    """Without django-q2 the plugin drains in the request, at the commit."""
    return modify_settings(INSTALLED_APPS={"remove": ["django_q"]})


def test_an_agent_who_is_faster_than_the_worker_has_the_last_word(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int], agent: User
) -> None:
    ticket = by_service(OUTAGE)
    TicketService().change_priority(ticket, agent, "low")
    work()
    ticket.refresh_from_db()
    assert ticket.priority == "low"
    assert Override.objects.get().to_priority == 0
    assert [entry["new_priority"] for entry in log(ticket, "priority_changed")] == ["low"]


def test_an_escalation_rule_that_is_faster_than_the_worker_stands(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    ticket = by_service(TYPO)
    Ticket.unrestricted.filter(pk=ticket.pk).update(priority="critical")
    work()
    ticket.refresh_from_db()
    assert ticket.priority == "critical"
    assert Prediction.objects.get().state == "superseded"


def test_a_response_that_was_given_keeps_its_deadline(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    ticket = by_service(OUTAGE)
    Ticket.unrestricted.update(first_response_at=timezone.now())
    work()
    assert deadlines(ticket) == (8, 10)


def test_a_breach_is_not_rewritten(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    ticket = by_service(OUTAGE)
    Ticket.unrestricted.update(sla_resolution_breached=True)
    work()
    assert deadlines(ticket) == (4, 24)


def test_a_deadline_that_somebody_else_set_stays(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    ticket = by_service(OUTAGE)
    Ticket.unrestricted.update(resolution_due_at=ticket.created_at + timedelta(hours=30))
    work()
    assert deadlines(ticket) == (4, 30)


def test_a_deadline_does_not_move_into_the_past(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    ticket = by_service(OUTAGE)
    Ticket.unrestricted.update(
        created_at=ticket.created_at - timedelta(hours=5),
        first_response_due_at=ticket.first_response_due_at - timedelta(hours=5),
        resolution_due_at=ticket.resolution_due_at - timedelta(hours=5),
    )
    work()
    assert deadlines(ticket) == (8, 10)


def test_hours_that_a_policy_leaves_out_give_no_deadline(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    SlaPolicy.objects.update(first_response_hours={"high": 4}, resolution_hours={"medium": 24})
    ticket = by_service(OUTAGE)
    assert deadlines(ticket) == (None, 24)
    work()
    assert deadlines(ticket) == (4, None)


def test_a_deadline_in_business_hours_moves_in_business_hours(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    SlaPolicy.objects.update(business_hours_only=True)
    ticket = by_service(OUTAGE)
    work()
    ticket.refresh_from_db()
    expected = SlaService._add_business_hours(ticket.created_at, 10)
    assert abs((ticket.resolution_due_at - expected).total_seconds()) < 60


def test_without_a_policy_there_is_nothing_to_move(
    asynchronous: None, work: Callable[[], int], db: None
) -> None:
    ticket = by_service(OUTAGE)
    work()
    ticket.refresh_from_db()
    assert (ticket.priority, deadlines(ticket)) == ("high", (None, None))


def test_a_ticket_that_waited_for_a_model(
    db: None, sla: SlaPolicy, work: Callable[[], int]
) -> None:
    ticket = by_service(OUTAGE)
    activate_toy()
    assert work() == 1
    ticket.refresh_from_db()
    assert (ticket.priority, deadlines(ticket)) == ("high", (4, 10))
    assert log(ticket, "priority_changed")[0]["predicted"] is True


def test_the_backlog(
    db: None,
    sla: SlaPolicy,
    heard: list[dict[str, Any]],
    django_capture_on_commit_callbacks: Any,
    agent: User,
) -> None:
    """`classify_tickets`: closed tickets are spared the host's listeners, decided ones all."""
    opened, closed, decided = (by_service(OUTAGE) for _ in range(3))
    Prediction.objects.all().delete()
    TicketService().close(closed, agent)
    # As if it had happened before the plugin came.
    for value in ("high", "medium"):
        TicketService().change_priority(decided, agent, value)
    Override.objects.all().delete()
    heard.clear()
    activate_toy()
    with django_capture_on_commit_callbacks(execute=True):
        call_command("classify_tickets", verbosity=0)
    for ticket in (opened, closed, decided):
        ticket.refresh_from_db()
    assert [ticket.priority for ticket in (opened, closed, decided)] == ["high", "high", "medium"]
    assert [said["ticket"] for said in heard] == [opened]
    assert len(log(closed, "priority_changed")) == 1
    assert deadlines(closed) == (4, 24)


class Cloud(BaseHTTPRequestHandler):
    """The far end of a synced host: it keeps what is reported."""

    reports: list[dict[str, Any]]

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.reports.append(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def cloud(settings: Any) -> Iterator[list[dict[str, Any]]]:
    Cloud.reports = []
    server = HTTPServer(("127.0.0.1", 0), Cloud)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.ESCALATED = {
        **settings.ESCALATED,
        "MODE": "synced",
        "HOSTED_API_URL": f"http://127.0.0.1:{server.server_port}",
    }
    yield Cloud.reports
    server.shutdown()
    server.server_close()


def test_a_synced_host_reports_the_predicted_priority(
    asynchronous: None, sla: SlaPolicy, work: Callable[[], int], cloud: list[dict[str, Any]]
) -> None:
    ticket = by_service(OUTAGE)
    work()
    created, changed = cloud
    assert created["event"] == "ticket.created"
    assert changed["event"] == "ticket.priority_changed"
    assert changed["payload"] == {
        "ticket_id": ticket.pk,
        "reference": ticket.reference,
        "priority": "high",
        "user_id": None,
    }
