"""Who decides: agents and admins, by every route the host gives them. Nobody else does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.test import Client
from django.urls import reverse
from escalated.models import (
    ApiToken,
    Automation,
    EscalationRule,
    Macro,
    SlaPolicy,
    Ticket,
    Webhook,
    WebhookDelivery,
)
from escalated.services.automation_runner import AutomationRunner
from escalated.services.escalation_service import EscalationService
from escalated.services.macro_service import MacroService
from escalated.services.ticket_service import TicketService
from escalated.signals import ticket_priority_changed
from escalated.views.cloud_webhook import _apply
from escalated.workflow_models import Workflow
from routes import OUTAGE, by_service, deadlines, log

import ticket_priority
from ticket_priority import Priority
from ticket_priority.models import ModelVersion, Override

pytestmark = pytest.mark.django_db


@pytest.fixture
def ticket(model: ModelVersion, sla: SlaPolicy) -> Ticket:
    """A ticket that was predicted to be high."""
    return by_service(OUTAGE)


def by_agents_page(ticket: Ticket, user: User) -> None:
    client = Client()
    client.force_login(user)
    url = reverse("escalated:agent_ticket_priority", args=[ticket.pk])
    assert client.post(url, {"priority": "low"}).status_code == 302


def by_api(ticket: Ticket, user: User) -> None:
    token = ApiToken.create_token(user, "test")["plain_text_token"]
    answer = Client().patch(
        f"/support/api/v1/tickets/{ticket.reference}/priority/",
        json.dumps({"priority": "low"}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200


def by_bulk_action(ticket: Ticket, user: User) -> None:
    client = Client()
    client.force_login(user)
    body = {"action": "priority", "ticket_ids": [ticket.pk], "value": "low"}
    url = reverse("escalated:agent_ticket_bulk")
    answer = client.post(url, json.dumps(body), content_type="application/json")
    assert answer.status_code == 302


def by_macro(ticket: Ticket, user: User) -> None:
    macro = Macro.objects.create(name="Calm", actions=[{"type": "set_priority", "value": "low"}])
    client = Client()
    client.force_login(user)
    url = reverse("escalated:agent_ticket_macro", args=[ticket.pk])
    assert client.post(url, {"macro_id": macro.pk}).status_code == 302


@pytest.mark.parametrize(
    "decide",
    [by_agents_page, by_api, by_bulk_action, by_macro],
    ids=lambda route: route.__name__,
)
def test_an_agent_decides(decide: Callable[..., None], ticket: Ticket, agent: User) -> None:
    decide(ticket, agent)
    ticket.refresh_from_db()
    record = Override.objects.get()
    assert ticket.priority == "low"
    assert (record.user, record.via) == (agent, "agent")
    assert (record.from_priority, record.to_priority) == (Priority.HIGH, Priority.LOW)
    assert record.prediction is not None
    (entry,) = log(ticket, "priority_changed")
    assert entry == {"old_priority": "high", "new_priority": "low"}
    # As ever in this host: a decision leaves the deadlines.
    assert deadlines(ticket) == (4, 10)


def test_an_admin_decides_on_the_admins_page(ticket: Ticket, admin_user: User) -> None:
    client = Client()
    client.force_login(admin_user)
    url = reverse("escalated:admin_tickets_priority", args=[ticket.pk])
    client.post(url, {"priority": "medium"})
    assert (Override.objects.get().user, Override.objects.get().to_priority) == (admin_user, 1)


def test_the_assignee_decides_whether_of_a_department_or_not(ticket: Ticket) -> None:
    expert = User.objects.create_user("expert")
    Ticket.unrestricted.update(assigned_to=expert)
    ticket.refresh_from_db()
    TicketService().change_priority(ticket, expert, "low")
    assert Override.objects.get().user == expert


def test_the_default_is_a_decision_when_an_agent_chooses_it(ticket: Ticket, agent: User) -> None:
    TicketService().change_priority(ticket, agent, "medium")
    assert Override.objects.get().to_priority == Priority.MEDIUM


def test_urgent_is_high_and_confirms_a_high_prediction(ticket: Ticket, agent: User) -> None:
    TicketService().change_priority(ticket, agent, "urgent")
    record = Override.objects.get()
    assert (record.from_priority, record.to_priority) == (Priority.HIGH, Priority.HIGH)


def test_a_decision_of_a_request_that_is_rolled_back_is_gone(ticket: Ticket, agent: User) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        TicketService().change_priority(ticket, agent, "low")
        raise RuntimeError
    ticket.refresh_from_db()
    assert ticket.priority == "high"
    assert not Override.objects.exists()


def by_customer(ticket: Ticket) -> None:
    TicketService().change_priority(ticket, User.objects.get(username="requester"), "critical")


def by_escalation_rule(ticket: Ticket) -> None:
    EscalationRule.objects.create(
        name="All", trigger_type="priority_change", actions={"set_priority": "critical"}
    )
    assert EscalationService.evaluate_all() == 1


def by_automation(ticket: Ticket) -> None:
    Automation.objects.create(
        name="All", actions=[{"type": "change_priority", "value": "critical"}], active=True
    )
    assert AutomationRunner().run() == 1


def by_workflow(ticket: Ticket) -> None:
    Workflow.objects.create(
        name="All",
        trigger_event="ticket.updated",
        actions=[{"type": "change_priority", "value": "critical"}],
    )
    TicketService().update(ticket, None, {"subject": "Fire"})


def by_cloud(ticket: Ticket) -> None:
    assert _apply(ticket, {"priority": "critical"}) == ["priority"]


def by_nobodys_macro(ticket: Ticket) -> None:
    macro = Macro.objects.create(name="All", actions=[{"type": "priority", "value": "critical"}])
    MacroService().apply(macro, ticket, None)


@pytest.mark.parametrize(
    "change",
    [by_customer, by_escalation_rule, by_automation, by_workflow, by_cloud, by_nobodys_macro],
    ids=lambda route: route.__name__,
)
def test_others_change_it_and_decide_nothing(change: Callable[..., None], ticket: Ticket) -> None:
    change(ticket)
    ticket.refresh_from_db()
    assert ticket.priority == "critical"
    assert not Override.objects.exists()


# Decisions made with the plugin's own means.


@pytest.fixture
def heard() -> Any:
    said: list[dict[str, Any]] = []

    def hear(sender: Any, **kwargs: Any) -> None:
        said.append(kwargs)

    ticket_priority_changed.connect(hear)
    yield said
    ticket_priority_changed.disconnect(hear)


def test_an_override_stands_in_the_activity_log_and_is_recorded_once(
    ticket: Ticket,
    agent: User,
    heard: list[dict[str, Any]],
    django_capture_on_commit_callbacks: Any,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        ticket_priority.override(ticket, Priority.LOW, user=agent, reason="A drill.", via="api")
    ticket.refresh_from_db()
    assert ticket.priority == "low"
    assert (Override.objects.get().user, Override.objects.get().via) == (agent, "api")
    activity = ticket.activities.get(type="priority_changed")
    assert activity.causer == agent
    assert activity.properties == {
        "old_priority": "high",
        "new_priority": "low",
        "reason": "A drill.",
    }
    (said,) = heard
    assert (said["user"], said["old_priority"], said["new_priority"]) == (agent, "high", "low")
    assert deadlines(ticket) == (4, 10)


def test_an_override_over_the_api(
    ticket: Ticket, agent: User, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    client.force_login(agent)
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(
            f"/priority/tickets/escalated.Ticket/{ticket.pk}/override/",
            {"priority": "low"},
            content_type="application/json",
        )
    assert answer.status_code == 201, answer.content
    ticket.refresh_from_db()
    assert ticket.priority == "low"
    assert Override.objects.get().user == agent
    assert ticket.activities.get(type="priority_changed").causer == agent


def test_a_decision_in_the_projects_admin(
    ticket: Ticket, admin_user: User, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    client.force_login(admin_user)
    form = {"subject": OUTAGE, "priority": "low", "initial-priority": "high"}
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(f"/admin/escalated/ticket/{ticket.pk}/change/", form)
    assert answer.status_code == 302, answer.content
    ticket.refresh_from_db()
    assert ticket.priority == "low"
    assert (Override.objects.get().user, Override.objects.get().via) == (admin_user, "admin")
    assert ticket.activities.get(type="priority_changed").causer == admin_user


def test_an_override_by_nobody_in_particular(ticket: Ticket) -> None:
    ticket_priority.override(ticket, Priority.LOW, user=AnonymousUser())
    assert Override.objects.get().user is None
    assert ticket.activities.get(type="priority_changed").causer is None


def test_a_webhook_of_the_host_hears_of_an_override(
    ticket: Ticket, agent: User, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.ESCALATED = {**settings.ESCALATED, "ALLOW_PRIVATE_WEBHOOK_URLS": True}
    Webhook.objects.create(url="http://127.0.0.1:9/", events=["ticket.priority_changed"])
    with django_capture_on_commit_callbacks(execute=True):
        ticket_priority.override(ticket, Priority.LOW, user=agent)
    payload = WebhookDelivery.objects.first().payload
    assert (payload["old_priority"], payload["new_priority"]) == ("high", "low")
    assert payload["user_id"] == agent.pk
