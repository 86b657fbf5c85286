"""What training learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from escalated.models import EscalationRule, Ticket
from escalated.services.escalation_service import EscalationService
from escalated.services.ticket_service import TicketService
from routes import OUTAGE, TYPO, by_service

import ticket_priority
from ticket_priority import Priority, muted
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.sources.registry import get_source
from ticket_priority.training.labels import labelled_texts

pytestmark = pytest.mark.django_db


def labels() -> dict[int, int]:
    """The class of each ticket that training would learn from."""
    return {int(row.pk): row.label for row in labelled_texts(get_source(Ticket))}


def before_the_plugin(text: str = TYPO, **data: str) -> Ticket:
    with muted():
        return by_service(text, **data)


def escalate() -> None:
    EscalationRule.objects.create(
        name="All", trigger_type="priority_change", actions={"set_priority": "critical"}
    )
    EscalationService.evaluate_all()


def forget_overrides() -> None:
    """As if the agents had decided before the plugin was there to listen."""
    Override.objects.all().delete()


@pytest.mark.parametrize(
    ("values", "label"),
    [(["low"], 0), (["high", "medium"], 1), (["critical"], 2), (["urgent", "low"], 0)],
)
def test_what_an_agent_set_before_the_plugin_came(
    values: Iterable[str], label: int, agent: User
) -> None:
    ticket = before_the_plugin()
    for value in values:
        TicketService().change_priority(ticket, agent, value)
    forget_overrides()
    assert labels() == {ticket.pk: label}


def test_defaults_and_what_the_sender_chose_are_no_labels(db: None) -> None:
    before_the_plugin()
    before_the_plugin(priority="critical")
    assert labels() == {}


def test_what_the_requester_changed_is_no_label(db: None) -> None:
    ticket = before_the_plugin()
    TicketService().change_priority(ticket, User.objects.get(username="requester"), "high")
    assert labels() == {}


def test_an_escalation_rule_gives_no_label(db: None, agent: User) -> None:
    ticket = before_the_plugin()
    TicketService().change_priority(ticket, agent, "low")
    forget_overrides()
    escalate()
    assert labels() == {}


def test_a_decision_outlives_the_rule_that_escalated_the_ticket(
    model: ModelVersion, agent: User
) -> None:
    ticket = by_service(TYPO)
    TicketService().change_priority(ticket, agent, "medium")
    escalate()
    ticket.refresh_from_db()
    assert ticket.priority == "critical"
    assert labels() == {ticket.pk: Priority.MEDIUM}


def test_a_prediction_is_no_label_until_somebody_confirms_it(
    model: ModelVersion, agent: User
) -> None:
    ticket = by_service(OUTAGE)
    assert labels() == {}
    ticket_priority.override(ticket, Priority.HIGH, user=agent)
    assert labels() == {ticket.pk: Priority.HIGH}


def test_a_late_prediction_is_no_label(asynchronous: None) -> None:
    by_service(OUTAGE)
    outbox.drain()
    assert Prediction.objects.get().state == "applied"
    assert labels() == {}


def test_one_query_a_batch(db: None, agent: User) -> None:
    for _ in range(5):
        TicketService().change_priority(before_the_plugin(), agent, "low")
    with CaptureQueriesContext(
        connection,
    ) as few:
        labels()
    for _ in range(20):
        TicketService().change_priority(before_the_plugin(), agent, "low")
    with CaptureQueriesContext(connection) as many:
        assert len(labels()) == 25
    assert len(many) == len(few)


def test_the_backlog_leaves_out_what_an_agent_set_to_the_default(db: None, agent: User) -> None:
    decided, undecided = before_the_plugin(), before_the_plugin()
    for value in ("high", "medium"):
        TicketService().change_priority(decided, agent, value)
    assert list(get_source(Ticket).unset_rows()) == [undecided]


def test_a_subject_that_was_edited_is_learnt_as_the_ticket_was_created(
    model: ModelVersion, agent: User
) -> None:
    ticket = by_service(TYPO)
    source = get_source(Ticket)
    before = source.text_of(ticket)
    TicketService().change_priority(ticket, agent, "high")
    TicketService().update(ticket, agent, {"subject": "Another subject"})
    counted: Counter[str] = Counter()
    (row,) = labelled_texts(source, edited=counted)
    assert row.text == before != source.text_of(ticket)
    assert counted == {"known": 1, "since": 1, "restored": 1}
    ticket = Ticket.unrestricted.get(pk=ticket.pk)
    assert source.text_at_creation(ticket) == before


def test_a_former_description_is_kept_nowhere(model: ModelVersion, agent: User) -> None:
    ticket = by_service(TYPO)
    TicketService().change_priority(ticket, agent, "high")
    TicketService().update(ticket, agent, {"description": "All is well again."})
    counted: Counter[str] = Counter()
    (row,) = labelled_texts(get_source(Ticket), edited=counted)
    assert row.text == get_source(Ticket).text_of(ticket)
    assert counted == {"known": 1, "since": 1}
