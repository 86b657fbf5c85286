"""Who sees what: the host's own rules."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import Client
from escalated.models import Department, Ticket
from escalated.ticket_access import ticket_access
from routes import OUTAGE, by_service

from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.sources.registry import get_source

pytestmark = pytest.mark.django_db


@pytest.fixture
def tickets(model: ModelVersion, department: Department) -> tuple[Ticket, Ticket]:
    """One of the agent's department, one of another."""
    other = Department.objects.create(name="Other", slug="other")
    return (
        by_service(OUTAGE, department_id=department.pk),
        by_service(OUTAGE, department_id=other.pk),
    )


def seen_by(user: User) -> int:
    """How many tickets' predictions the API shows."""
    client = Client()
    client.force_login(user)
    answer = client.get("/priority/predictions/")
    assert answer.status_code == 200, answer.content
    return len(answer.json()["results"])


def test_agents_and_admins_see_all(
    tickets: tuple[Ticket, Ticket], agent: User, admin_user: User
) -> None:
    assert (seen_by(agent), seen_by(admin_user)) == (2, 2)


def test_a_requester_sees_no_predictions_not_even_of_the_own_tickets(
    tickets: tuple[Ticket, Ticket],
) -> None:
    assert seen_by(User.objects.get(username="requester")) == 0


def test_an_assignee_sees_the_assigned(tickets: tuple[Ticket, Ticket], customer: User) -> None:
    Ticket.unrestricted.filter(pk=tickets[0].pk).update(assigned_to=customer)
    assert seen_by(customer) == 1


def test_agents_who_are_restricted_to_their_department(
    tickets: tuple[Ticket, Ticket], agent: User, admin_user: User, settings: Any
) -> None:
    settings.ESCALATED = {**settings.ESCALATED, "VISIBILITY": "department"}
    assert (seen_by(agent), seen_by(admin_user)) == (1, 2)
    source = get_source(Ticket)
    assert list(source.changeable_rows(agent)) == [tickets[0]]


def test_nobody_sees_nothing(tickets: tuple[Ticket, Ticket]) -> None:
    assert not get_source(Ticket).visible_rows(AnonymousUser()).exists()


def test_the_plugin_sees_past_the_restrictions_of_a_request(
    tickets: tuple[Ticket, Ticket], agent: User, settings: Any
) -> None:
    settings.ESCALATED = {**settings.ESCALATED, "VISIBILITY": "department"}
    with ticket_access(agent):
        assert Ticket.objects.count() == 1
        assert get_source(Ticket).queryset().count() == 2


def test_a_restricted_agents_decision_is_recorded(
    tickets: tuple[Ticket, Ticket], agent: User, settings: Any, client: Client
) -> None:
    settings.ESCALATED = {**settings.ESCALATED, "VISIBILITY": "department"}
    client.force_login(agent)
    for ticket in tickets:
        client.post(f"/support/agent/tickets/{ticket.pk}/priority/", {"priority": "low"})
    assert [record.object_id for record in Override.objects.all()] == [str(tickets[0].pk)]
    assert Prediction.objects.count() == 2
