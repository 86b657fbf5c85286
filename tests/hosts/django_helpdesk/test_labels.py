"""Which of a helpdesk's tickets teach: those whose priority its staff set, with or without us."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from routes import (
    Desk,
    open_by_admin,
    open_by_mail,
    open_by_public_form,
    open_by_staff_form,
    post_edit,
    post_to_api,
    post_update,
)

import ticket_priority
from helpdesk.models import Queue, Ticket
from ticket_priority.models import Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions import reclassify as reclassification
from ticket_priority.priorities import Priority
from ticket_priority.sources.registry import get_source
from ticket_priority.training.labels import labelled_texts

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = "outage fire breach down"
HIGH, MEDIUM, LOW = Priority.HIGH, Priority.MEDIUM, Priority.LOW

Past = Callable[[Desk], Ticket]


def labels() -> dict[int, int]:
    return {int(row.pk): row.label for row in labelled_texts(get_source(Ticket))}


def escalate() -> None:
    Queue.objects.update(escalate_days=1)
    Ticket.objects.update(created=timezone.now() - timedelta(days=5), last_escalation=None)
    call_command("escalate_tickets")


def changed(desk: Desk, *priorities: int, opened_with: int = 3, **values: Any) -> Ticket:
    ticket = open_by_public_form(desk, TEXT, opened_with)
    for priority in priorities:
        post_update(ticket, desk.agent, priority=priority, **values)
        ticket.refresh_from_db()
    return ticket


def changed_and_escalated(desk: Desk) -> Ticket:
    ticket = changed(desk, 2)
    escalate()
    ticket.refresh_from_db()
    assert ticket.priority == 1
    return ticket


def changed_twice_and_escalated_back(desk: Desk) -> Ticket:
    ticket = changed(desk, 2, 4)
    escalate()
    escalate()
    ticket.refresh_from_db()
    assert ticket.priority == 2
    return ticket


def changed_and_edited(desk: Desk) -> Ticket:
    ticket = changed(desk, 4)
    post_edit(ticket, desk.agent, priority=2)
    return ticket


def opened_and_escalated(desk: Desk) -> Ticket:
    ticket = open_by_staff_form(desk, TEXT, 2)
    escalate()
    return ticket


def opened_by_api(desk: Desk) -> Ticket:
    return Ticket.objects.get(pk=post_to_api(desk, TEXT, priority=4)["id"])


def inserted_and_answered(desk: Desk) -> Ticket:
    ticket = Ticket.objects.create(queue=desk.queue, title="Alarm", description=TEXT, priority=1)
    post_update(ticket, desk.agent, comment="Looking at it.")
    return ticket


def left_by_its_agent(desk: Desk) -> Ticket:
    ticket = changed(desk, 1)
    User.objects.filter(pk=desk.agent.pk).update(is_active=False)
    return ticket


LABELLED: list[tuple[str, Past, Priority]] = [
    ("staff opened it", lambda desk: open_by_staff_form(desk, TEXT, 2), HIGH),
    ("staff opened it by the API", opened_by_api, LOW),
    ("staff changed it", lambda desk: changed(desk, 1), HIGH),
    ("staff changed it with a comment", lambda desk: changed(desk, 5, comment="No haste."), LOW),
    ("staff changed it to a default", lambda desk: changed(desk, 3, opened_with=1), MEDIUM),
    ("staff changed it twice", lambda desk: changed(desk, 1, 4), LOW),
    ("staff who left changed it", left_by_its_agent, HIGH),
]
UNLABELLED: list[tuple[str, Past]] = [
    ("a default", lambda desk: open_by_public_form(desk, TEXT)),
    ("a default that staff left", lambda desk: open_by_staff_form(desk, TEXT)),
    ("a customer's choice", lambda desk: open_by_public_form(desk, TEXT, 1)),
    ("a mail's default", lambda desk: open_by_mail(desk, TEXT)),
    ("a mail's header", lambda desk: open_by_mail(desk, TEXT, "Importance: high\n")),
    ("escalated after staff changed it", changed_and_escalated),
    ("escalated back to what staff once chose", changed_twice_and_escalated_back),
    ("escalated after staff opened it", opened_and_escalated),
    ("edited after staff changed it", changed_and_edited),
    ("inserted by a program, answered by staff", inserted_and_answered),
    ("added in the admin", lambda desk: open_by_admin(desk, TEXT, 1)),
]


@pytest.mark.parametrize(
    ("past", "label"), [row[1:] for row in LABELLED], ids=[row[0] for row in LABELLED]
)
def test_staff_set_it_before_the_plugin_came(desk: Desk, past: Past, label: Priority) -> None:
    with ticket_priority.muted():
        ticket = past(desk)
    assert labels() == {ticket.pk: label}


@pytest.mark.parametrize("past", [row[1] for row in UNLABELLED], ids=[row[0] for row in UNLABELLED])
def test_nobody_set_it_before_the_plugin_came(desk: Desk, past: Past) -> None:
    with ticket_priority.muted():
        past(desk)
    assert labels() == {}


def test_the_mails_header_is_read_by_the_host(desk: Desk) -> None:
    assert open_by_mail(desk, TEXT, "Importance: high\n").priority == 2
    assert not Prediction.objects.exists()


def test_a_change_is_read_in_whatever_language_it_was_written(desk: Desk, settings: Any) -> None:
    with ticket_priority.muted():
        settings.LANGUAGE_CODE = "de"
        german = changed(desk, 1)
        settings.LANGUAGE_CODE = "en"
        english = changed(desk, 4)
    fields = {change.field for change in _changes(german) | _changes(english)}
    assert fields == {"Priorität", "Priority"}
    assert labels() == {german.pk: HIGH, english.pk: LOW}


def _changes(ticket: Ticket) -> set[Any]:
    return {
        change
        for followup in ticket.followup_set.all()
        for change in followup.ticketchange_set.all()
    }


@pytest.mark.usefixtures("customers_may_update")
def test_a_customers_change_is_no_label(desk: Desk) -> None:
    customer = User.objects.create_user("customer", "customer@example.com", "x")
    with ticket_priority.muted():
        ticket = changed(desk, 2)
        post_update(ticket, customer, priority=1)
    assert Ticket.objects.get().priority == 1
    assert labels() == {}


def test_the_projects_own_rule_says_who_is_staff(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ticket_priority.muted():
        by_agent = changed(desk, 1)
        by_other = open_by_public_form(desk, TEXT)
        post_update(by_other, desk.superuser, priority=1)
    setting = "helpdesk.settings.HELPDESK_ALLOW_NON_STAFF_TICKET_UPDATE"
    monkeypatch.setattr(setting, lambda user: user.username == "agent")
    assert labels() == {by_agent.pk: HIGH}


def test_a_default_for_the_public_form_is_no_label(desk: Desk, settings: Any) -> None:
    settings.HELPDESK_PUBLIC_TICKET_PRIORITY = 4
    with ticket_priority.muted():
        open_by_staff_form(desk, TEXT, 4)
        chosen = open_by_staff_form(desk, TEXT, 2)
    assert labels() == {chosen.pk: HIGH}


def test_predictions_are_no_labels(desk: Desk) -> None:
    for text in (TEXT, "typo font colour wish", "invoice refund login"):
        open_by_public_form(desk, text)
        open_by_staff_form(desk, text)
    assert Prediction.objects.filter(state=Prediction.State.APPLIED).count() == 6
    assert labels() == {}


def test_a_decision_is_a_label_whatever_an_escalation_does_later(desk: Desk) -> None:
    ticket = open_by_public_form(desk, TEXT)
    post_edit(ticket, desk.agent, priority=4)
    escalate()
    ticket.refresh_from_db()
    assert ticket.priority == 3
    assert labels() == {ticket.pk: LOW}


def test_what_a_stale_form_put_back_is_no_label(desk: Desk, configure: Callable[..., None]) -> None:
    configure(MODE="async")
    shown = open_by_public_form(desk, TEXT)
    outbox.drain()
    post_update(shown, desk.agent, comment="Looking at it.")
    shown.refresh_from_db()
    assert shown.priority == 3
    assert labels() == {}


def test_an_override_is_a_label(desk: Desk) -> None:
    ticket = open_by_public_form(desk, TEXT)
    ticket_priority.override(ticket, MEDIUM, user=desk.agent)
    assert labels() == {ticket.pk: MEDIUM}


def test_the_backfill_takes_defaults_and_leaves_what_was_set(desk: Desk) -> None:
    with ticket_priority.muted():
        default = open_by_public_form(desk, TEXT)
        chosen = changed(desk, 3, opened_with=1)
        left = open_by_public_form(desk, TEXT, 5)
    assert [size for _, size in reclassification.backfill(get_source(Ticket))] == [1]
    found = {ticket.pk: ticket.priority for ticket in Ticket.objects.all()}
    assert found == {default.pk: 2, chosen.pk: 3, left.pk: 5}
    told = default.followup_set.last()
    assert (told.title, told.user) == ("Priority set automatically", None)


def test_labels_are_read_in_as_many_queries_however_many_tickets(desk: Desk) -> None:
    labels()
    counts = []
    for tickets in (5, 10):
        with ticket_priority.muted():
            for _name, past, _label in LABELLED[:5]:
                past(desk)
        with CaptureQueriesContext(connection) as captured:
            assert len(labels()) == tickets
        counts.append(len(captured))
    assert counts[0] == counts[1]


def texts() -> list[str]:
    return [row.text for row in labelled_texts(get_source(Ticket))]


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_text_that_was_edited_is_learnt_as_the_ticket_was_opened(
    desk: Desk, settings: Any, language: str
) -> None:
    """A title changed twice on the ticket's page, a description by the edit form."""
    settings.LANGUAGE_CODE = language
    ticket = open_by_staff_form(desk, TEXT)
    before = texts_of(ticket)
    ticket_priority.override(ticket, HIGH, user=desk.agent)
    for title in ("Another title", "A third one"):
        post_update(ticket, desk.agent, title=title)
        ticket.refresh_from_db()
    post_edit(ticket, desk.agent, description="All is well again.")
    settings.LANGUAGE_CODE = "en"
    counted: Counter[str] = Counter()
    (row,) = labelled_texts(get_source(Ticket), edited=counted)
    assert row.text == before
    assert counted == {"known": 1, "since": 1, "restored": 1}
    ticket = Ticket.objects.get()
    assert (ticket.title, ticket.description) == ("A third one", "All is well again.")
    assert get_source(Ticket).text_at_creation(ticket) == before


def texts_of(ticket: Ticket) -> str:
    return get_source(Ticket).text_of(ticket)


@pytest.mark.parametrize("opened_by", [open_by_public_form, opened_by_api], ids=["form", "api"])
def test_the_follow_up_that_opened_a_ticket_holds_its_description(
    desk: Desk, opened_by: Callable[..., Ticket]
) -> None:
    with ticket_priority.muted():
        ticket = opened_by(desk) if opened_by is opened_by_api else opened_by(desk, TEXT)
        before = texts_of(ticket)
        post_update(ticket, desk.agent, priority=1, comment="Looking at it.")
        ticket.refresh_from_db()
        Ticket.objects.filter(pk=ticket.pk).update(description="edited by hand")
    assert texts() == [before]


def test_of_a_mail_the_host_keeps_the_former_title_alone(desk: Desk) -> None:
    ticket = open_by_mail(desk, TEXT)
    title = ticket.title
    ticket_priority.override(ticket, HIGH, user=desk.agent)
    post_update(ticket, desk.agent, title="Another title")
    ticket.refresh_from_db()
    post_edit(ticket, desk.agent, description="All is well again.")
    assert texts() == [f"{title}\nAll is well again."]


def test_what_staff_write_later_is_no_description(desk: Desk) -> None:
    ticket = open_by_admin(desk, TEXT)
    ticket_priority.override(ticket, HIGH, user=desk.agent)
    post_update(ticket, desk.agent, comment="Looking at it.")
    assert texts() == [texts_of(ticket)]


def test_without_one_of_its_fields_the_text_is_made_of_the_other(
    desk: Desk, configure: Callable[..., None]
) -> None:
    ticket = changed(desk, 1)
    post_edit(ticket, desk.agent, description="All is well again.")
    source = replace(get_source(Ticket), text_fields=("description",))
    assert [row.text for row in labelled_texts(source)] == [TEXT]
