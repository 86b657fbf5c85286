"""Who decided on a priority: the helpdesk's staff by every route, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone
from routes import (
    CREATION,
    CUSTOMER,
    Desk,
    open_by_public_form,
    patch,
    post_admin_change,
    post_edit,
    post_update,
    signed_in,
)

import ticket_priority
from helpdesk.models import Checklist, CustomField, FollowUp, Queue, Ticket
from ticket_priority.models import Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.priorities import Priority

pytestmark = pytest.mark.django_db(transaction=True)

URGENT = "outage fire breach down"
HIGH, MEDIUM, LOW = Priority.HIGH, Priority.MEDIUM, Priority.LOW

Change = Callable[..., Any]
CHANGES = {"update_form": post_update, "edit_form": post_edit, "admin": post_admin_change}


@pytest.fixture
def without_middleware(settings: Any) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "ticket_priority" not in name]


@pytest.fixture
def high(desk: Desk) -> Ticket:
    """A ticket that the model called high as it came in."""
    return open_by_public_form(desk, URGENT)


def opened_before_the_worker(desk: Desk, configure: Callable[..., None]) -> Ticket:
    """A ticket as a page showed it, before a worker called it high."""
    configure(MODE="async")
    shown = open_by_public_form(desk, URGENT)
    assert outbox.drain() == 1
    assert Ticket.objects.get(pk=shown.pk).priority == 2
    return shown


def decisions(ticket: Ticket) -> list[tuple[Any, ...]]:
    rows = Override.objects.for_instance(ticket).order_by("pk")
    return list(rows.values_list("user__username", "from_priority", "to_priority", "via"))


def prediction_of(ticket: Ticket) -> Prediction:
    return Prediction.objects.for_instance(ticket).get()


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize("route", CHANGES)
def test_staff_decide_by_every_form(high: Ticket, desk: Desk, route: str) -> None:
    CHANGES[route](high, desk.superuser, priority=4)
    high.refresh_from_db()
    assert high.priority == 4
    assert decisions(high) == [("root", HIGH, LOW, route)]
    assert Override.objects.get().prediction == prediction_of(high)


@pytest.mark.usefixtures("atomic_requests")
def test_staff_decide_by_the_api(high: Ticket, desk: Desk) -> None:
    assert patch(high, desk.agent, priority=4)["priority"] == 4
    assert decisions(high) == [("agent", HIGH, LOW, "api")]


@pytest.mark.usefixtures("without_middleware")
def test_the_update_form_knows_its_user_without_the_middleware(high: Ticket, desk: Desk) -> None:
    post_update(high, desk.agent, priority=4)
    assert decisions(high) == [("agent", HIGH, LOW, "update_form")]


@pytest.mark.usefixtures("without_middleware")
def test_other_routes_know_nobody_without_the_middleware(high: Ticket, desk: Desk) -> None:
    post_edit(high, desk.agent, priority=4)
    patch(high, desk.agent, priority=5)
    assert decisions(high) == []


def test_a_decision_is_recorded_in_the_language_of_whoever_decides(
    high: Ticket, desk: Desk
) -> None:
    client = signed_in(desk.agent)
    page = reverse("helpdesk:update", args=[high.pk])
    values = {"title": high.title, "queue": high.queue_id, "priority": 4}
    client.post(page, values, headers={"accept-language": "de"})
    assert high.followup_set.last().ticketchange_set.get().field == "Priorität"
    assert decisions(high) == [("agent", HIGH, LOW, "update_form")]


def test_a_default_is_a_decision_where_staff_choose_it(high: Ticket, desk: Desk) -> None:
    post_update(high, desk.agent, priority=3)
    assert decisions(high) == [("agent", HIGH, MEDIUM, "update_form")]


def test_what_leaves_the_priority_alone_decides_nothing(high: Ticket, desk: Desk) -> None:
    post_update(high, desk.agent, comment="Looking at it.")
    post_edit(high, desk.agent, title="Printer on fire")
    post_admin_change(high, desk.superuser, title="Printer still on fire")
    patch(high, desk.agent, title="Printer out")
    high.refresh_from_db()
    assert (high.priority, high.title) == (2, "Printer out")
    assert decisions(high) == []
    assert prediction_of(high).state == Prediction.State.APPLIED


def test_the_hosts_own_follow_up_is_the_only_one(high: Ticket, desk: Desk) -> None:
    before = FollowUp.objects.count()
    post_update(high, desk.agent, priority=4, comment="A drill.", public="1")
    assert FollowUp.objects.count() == before + 1


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_escalation_decides_nothing(
    desk: Desk, mode: str, configure: Callable[..., None]
) -> None:
    configure(MODE=mode)
    Queue.objects.update(escalate_days=1)
    ticket = open_by_public_form(desk, URGENT)
    outbox.drain()
    Ticket.objects.update(created=timezone.now() - timedelta(days=5))
    call_command("escalate_tickets")
    ticket.refresh_from_db()
    assert ticket.priority == 1
    assert decisions(ticket) == []
    assert prediction_of(ticket).state == Prediction.State.APPLIED


@pytest.mark.usefixtures("customers_may_update")
def test_a_customers_word_is_no_decision(high: Ticket) -> None:
    customer = User.objects.create_user("customer", CUSTOMER, "x")
    post_update(high, customer, priority=1, comment="Hurry!")
    high.refresh_from_db()
    assert (high.priority, high.followup_set.last().user) == (1, customer)
    assert decisions(high) == []


def test_a_rule_of_the_project_says_who_is_staff(
    high: Ticket, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = "helpdesk.settings.HELPDESK_ALLOW_NON_STAFF_TICKET_UPDATE"
    monkeypatch.setattr(setting, lambda user: user.username == "root")
    post_update(high, desk.agent, priority=4)
    assert decisions(high) == []
    post_update(high, desk.superuser, priority=5, comment="Not at all.")
    assert decisions(high) == [("root", LOW, LOW, "update_form")]


@pytest.mark.parametrize(
    ("route", "values"),
    [
        ("update_form", {"comment": "Looking at it."}),
        ("update_form", {"new_status": Ticket.RESOLVED_STATUS}),
        ("update_form", {"title": "Printer on fire"}),
        ("update_form", {"time_spent": "1:30"}),
        ("edit_form", {"title": "Printer on fire"}),
        ("admin", {"title": "Printer on fire"}),
    ],
)
def test_a_form_opened_before_the_prediction_decides_nothing(
    desk: Desk, configure: Callable[..., None], route: str, values: dict[str, Any]
) -> None:
    shown = opened_before_the_worker(desk, configure)
    CHANGES[route](shown, desk.superuser, **values)
    assert Ticket.objects.get(pk=shown.pk).priority == 3
    assert decisions(shown) == []
    prediction = prediction_of(shown)
    assert (prediction.state, prediction.reason) == (
        Prediction.State.SUGGESTED,
        Prediction.Reason.STALE_FORM,
    )


def test_a_box_ticked_on_a_page_opened_before_decides_nothing(
    desk: Desk, configure: Callable[..., None]
) -> None:
    shown = opened_before_the_worker(desk, configure)
    checklist = Checklist.objects.create(ticket=shown, name="Fire")
    task = checklist.tasks.create(description="Call", position=1)
    post_update(shown, desk.agent, **{f"checklist-{checklist.pk}": [task.pk]})
    assert decisions(shown) == []
    assert prediction_of(shown).reason == Prediction.Reason.STALE_FORM


@pytest.mark.parametrize("priority", [1, 4])
def test_a_form_that_does_more_decides_where_the_value_is_another(
    desk: Desk, configure: Callable[..., None], priority: int
) -> None:
    shown = opened_before_the_worker(desk, configure)
    post_update(shown, desk.agent, comment="Looking at it.", priority=priority)
    assert [row[0] for row in decisions(shown)] == ["agent"]


def test_an_update_of_the_priority_alone_is_deliberate(
    desk: Desk, configure: Callable[..., None]
) -> None:
    shown = opened_before_the_worker(desk, configure)
    post_update(shown, desk.agent, priority=3)
    assert decisions(shown) == [("agent", HIGH, MEDIUM, "update_form")]


def test_a_patch_of_the_priority_is_deliberate(desk: Desk, configure: Callable[..., None]) -> None:
    shown = opened_before_the_worker(desk, configure)
    patch(shown, desk.agent, priority=3)
    assert decisions(shown) == [("agent", HIGH, MEDIUM, "api")]


def test_a_decision_stands_against_a_later_prediction(
    desk: Desk, configure: Callable[..., None]
) -> None:
    configure(MODE="async")
    ticket = open_by_public_form(desk, URGENT)
    post_update(ticket, desk.agent, priority=5)
    outbox.drain()
    ticket.refresh_from_db()
    assert ticket.priority == 5
    assert prediction_of(ticket).state == Prediction.State.SUPERSEDED


def test_an_override_by_our_api_is_told_with_its_reason(high: Ticket, desk: Desk) -> None:
    mail.outbox.clear()
    modified = high.modified
    answer = signed_in(desk.agent).post(
        f"/priority/tickets/helpdesk.Ticket/{high.pk}/override/",
        {"priority": "low", "reason": "A drill."},
        content_type="application/json",
    )
    assert answer.status_code == 201, answer.content
    high.refresh_from_db()
    assert high.priority == 4
    assert high.modified > modified
    told = high.followup_set.last()
    assert (told.title, told.comment, told.user, told.public) == (
        "Priority changed",
        "A drill.",
        desk.agent,
        False,
    )
    assert list(told.ticketchange_set.values_list("field", "old_value", "new_value")) == [
        ("Priority", "2", "4")
    ]
    assert decisions(high) == [("agent", HIGH, LOW, "api")]
    assert mail.outbox == []


def test_an_override_leaves_the_rest_of_the_ticket_alone(high: Ticket) -> None:
    stale = Ticket.objects.get(pk=high.pk)
    Ticket.objects.filter(pk=high.pk).update(title="Edited meanwhile")
    ticket_priority.override(stale, LOW)
    assert Ticket.objects.get(pk=high.pk).title == "Edited meanwhile"


def test_the_time_that_the_host_counts_stays_what_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpdesk.settings.FOLLOWUP_TIME_SPENT_AUTO", True)
    ticket = CREATION["public form"](desk, URGENT)
    start = timezone.now() - timedelta(hours=2)
    FollowUp.objects.filter(ticket=ticket, public=True).update(date=start, time_spent=None)
    FollowUp.objects.filter(ticket=ticket, public=False).delete()
    Ticket.objects.filter(pk=ticket.pk).update(created=start)
    ticket.refresh_from_db()
    ticket_priority.override(ticket, LOW)
    post_update(ticket, desk.agent, comment="Done.")
    assert ticket.time_spent.total_seconds() == pytest.approx(2 * 60 * 60, abs=60)


def test_time_that_the_host_counts_by_itself_is_no_other_purpose(
    desk: Desk, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpdesk.settings.FOLLOWUP_TIME_SPENT_AUTO", True)
    ticket = opened_before_the_worker(desk, configure)
    earlier = timezone.now() - timedelta(minutes=10)
    FollowUp.objects.update(date=earlier)
    Prediction.objects.update(decided_at=earlier)
    post_update(Ticket.objects.get(pk=ticket.pk), desk.agent, priority=3)
    assert FollowUp.objects.latest("pk").time_spent > timedelta(minutes=9)
    assert decisions(ticket) == [("agent", HIGH, MEDIUM, "update_form")]


@pytest.mark.usefixtures("without_middleware")
def test_a_custom_field_of_the_same_name_takes_nothing_away(high: Ticket, desk: Desk) -> None:
    CustomField.objects.create(name="Priority", label="Priority", data_type="varchar", max_length=9)
    post_update(high, desk.agent, priority=4, custom_Priority="P1")
    assert decisions(high) == [("agent", HIGH, LOW, "update_form")]


def test_a_page_opened_before_a_colleague_decided_decides_nothing(high: Ticket, desk: Desk) -> None:
    shown = Ticket.objects.get(pk=high.pk)
    post_update(Ticket.objects.get(pk=high.pk), desk.superuser, priority=4)
    post_update(shown, desk.agent, comment="Looking at it.")
    assert decisions(high) == [("root", HIGH, LOW, "update_form")]
