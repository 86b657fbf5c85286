"""Who sees and decides what over the plugin's endpoints: as the host would have it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from routes import Desk, open_by_public_form, signed_in

from helpdesk.models import Queue, Ticket
from ticket_priority.models import Override

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = "outage fire breach down"


@pytest.fixture
def tickets(desk: Desk) -> dict[str, Ticket]:
    """One ticket in each of two queues, and one of another queue that the agent was given."""
    other = Queue.objects.create(title="Finance", slug="finance", allow_public_submission=True)
    ours = open_by_public_form(desk, TEXT)
    theirs = Ticket.objects.create(queue=other, title="Tax", description=TEXT)
    given = Ticket.objects.create(
        queue=other, title="Bill", description=TEXT, assigned_to=desk.agent
    )
    return {"ours": ours, "theirs": theirs, "given": given}


@pytest.fixture
def by_queue(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent may open the support queue only."""
    monkeypatch.setattr("helpdesk.settings.HELPDESK_ENABLE_PER_QUEUE_STAFF_PERMISSION", True)
    codename = desk.queue.permission_name.split(".")[-1]
    desk.agent.user_permissions.add(Permission.objects.get(codename=codename))


def seen(user: User | None, tickets: dict[str, Ticket]) -> set[str]:
    """Which tickets the list shows, and the page of each, to the user."""
    client = signed_in(user)
    listed = client.get("/priority/predictions/")
    if listed.status_code in (401, 403):
        return set()
    keys = {int(row["object_id"]) for row in listed.json()["results"]}
    by_list = {name for name, ticket in tickets.items() if ticket.pk in keys}
    by_page = {
        name
        for name, ticket in tickets.items()
        if client.get(f"/priority/tickets/helpdesk.Ticket/{ticket.pk}/").status_code == 200
    }
    assert by_list == by_page
    return by_page


def override(user: User, ticket: Ticket) -> int:
    address = f"/priority/tickets/helpdesk.Ticket/{ticket.pk}/override/"
    answer: Any = signed_in(user).post(
        address, {"priority": "low"}, content_type="application/json"
    )
    return int(answer.status_code)


def test_staff_see_and_decide_all(desk: Desk, tickets: dict[str, Ticket]) -> None:
    assert seen(desk.agent, tickets) == {"ours", "theirs", "given"}
    assert override(desk.agent, tickets["theirs"]) == 201


@pytest.mark.usefixtures("by_queue")
def test_staff_see_and_decide_their_queues_and_what_they_were_given(
    desk: Desk, tickets: dict[str, Ticket]
) -> None:
    assert seen(desk.agent, tickets) == {"ours", "given"}
    codes = [override(desk.agent, tickets[name]) for name in ("ours", "given", "theirs")]
    assert codes == [201, 201, 404]
    assert Override.objects.count() == 2
    assert seen(desk.superuser, tickets) == {"ours", "theirs", "given"}


def test_customers_see_nothing(desk: Desk, tickets: dict[str, Ticket]) -> None:
    customer = User.objects.create_user("customer", "customer@example.com", "x")
    assert seen(customer, tickets) == set()
    assert seen(None, tickets) == set()
    assert override(customer, tickets["ours"]) == 404


@pytest.mark.usefixtures("customers_may_update")
def test_customers_who_may_write_may_not_decide(desk: Desk, tickets: dict[str, Ticket]) -> None:
    customer = User.objects.create_user("customer", "customer@example.com", "x")
    assert seen(customer, tickets) == {"ours", "theirs", "given"}
    assert override(customer, tickets["ours"]) == 403
    assert seen(None, tickets) == set()


def test_who_was_switched_off_sees_nothing(desk: Desk, tickets: dict[str, Ticket]) -> None:
    from ticket_priority.sources.registry import get_source

    for user in (desk.agent, desk.superuser):
        user.is_active = False
        assert not get_source(Ticket).visible_rows(user).exists()
        assert not get_source(Ticket).changeable_rows(user).exists()
