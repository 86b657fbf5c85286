from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import models
from django.utils import timezone

import ticket_priority
from helpdesk.models import Ticket
from tests.uuid_host.models import Case, Escalation
from ticket_priority.models import Prediction
from ticket_priority.models.rows import TicketRowQuerySet, content_type_of
from ticket_priority.predictions.overrides import override
from ticket_priority.predictions.standings import open_suggestions, standings
from ticket_priority.priorities import Priority

pytestmark = pytest.mark.django_db

State, Reason = Prediction.State, Prediction.Reason

MAKERS: dict[str, Callable[[int], models.Model]] = {
    "integer": lambda number: Ticket.objects.create(subject=f"ticket {number}"),
    "uuid": lambda number: Case.objects.create(body=f"case {number}"),
    "uuid of the parent": lambda number: Escalation.objects.create(body=f"escalation {number}"),
    "text": lambda number: Session.objects.create(
        session_key=f"key-{number}", expire_date=timezone.now()
    ),
}


def predict(ticket: models.Model, **values: Any) -> Prediction:
    return Prediction.objects.create(
        content_type=content_type_of(type(ticket)),
        object_id=str(ticket.pk),
        **{"mode": "sync", "state": State.APPLIED, "reason": Reason.OK, **values},
    )


@pytest.mark.parametrize("kind", MAKERS)
def test_ticket_keys_find_the_tickets_whatever_their_key_is(kind: str) -> None:
    with ticket_priority.muted():
        tickets = {name: [make(number) for number in range(3)] for name, make in MAKERS.items()}
    for rows in tickets.values():
        predict(rows[0])
        predict(rows[0])
        predict(rows[2], state=State.FAILED)
    model = type(tickets[kind][0])
    for predictions, expected in (
        (Prediction.objects.all(), {tickets[kind][0], tickets[kind][2]}),
        (Prediction.objects.filter(state=State.FAILED), {tickets[kind][2]}),
        (Prediction.objects.none(), set()),
    ):
        assert isinstance(predictions, TicketRowQuerySet)
        keys = predictions.ticket_keys(model)
        assert set(model._default_manager.filter(pk__in=keys)) == expected
        assert not set(model._default_manager.exclude(pk__in=keys)) & expected


def test_the_newest_prediction_of_each_ticket() -> None:
    with ticket_priority.muted():
        first, second = (Ticket.objects.create(subject=name) for name in "ab")
        # Another model's ticket may bear the same key.
        other = Session.objects.create(session_key=str(first.pk), expire_date=timezone.now())
    predict(first)
    newest = {predict(first, state=State.PENDING), predict(second)}
    later = predict(other)
    assert set(Prediction.objects.for_model(Ticket).newest()) == newest
    assert set(Prediction.objects.newest()) == {*newest, later}


class TestOpenSuggestions:
    @pytest.fixture
    def ticket(self) -> Ticket:
        with ticket_priority.muted():
            return Ticket.objects.create(subject="Lift stuck", priority=Priority.LOW)

    def test_the_newest_prediction_waits(self, ticket: Ticket) -> None:
        row = predict(ticket, state=State.SUGGESTED, priority=2)
        assert open_suggestions([ticket]) == {str(ticket.pk): row}

    def test_it_waits_after_an_older_decision(self, ticket: Ticket) -> None:
        override(ticket, Priority.MEDIUM)
        row = predict(ticket, state=State.SUGGESTED, priority=2)
        assert open_suggestions([ticket]) == {str(ticket.pk): row}

    def test_a_decision_closes_it_whatever_was_decided(self, ticket: Ticket) -> None:
        predict(ticket, state=State.SUGGESTED, priority=2)
        override(ticket, Priority.LOW)
        assert open_suggestions([ticket]) == {}

    def test_a_newer_prediction_closes_it(self, ticket: Ticket) -> None:
        predict(ticket, state=State.SUGGESTED, priority=2)
        predict(ticket, state=State.FAILED)
        assert open_suggestions([ticket]) == {}

    def test_what_the_ticket_has_already_is_none(self, ticket: Ticket) -> None:
        predict(ticket, state=State.SUGGESTED, priority=0)
        assert open_suggestions([ticket]) == {}

    def test_no_tickets(self) -> None:
        assert open_suggestions([]) == {}


def test_how_tickets_stand_is_one_query(django_assert_num_queries: Any) -> None:
    with ticket_priority.muted():
        waiting, decided, unasked = (Ticket.objects.create(subject=name) for name in "abc")
    predict(waiting, state=State.SUGGESTED, priority=2)
    predict(decided, state=State.SUGGESTED, priority=2)
    override(decided, Priority.LOW)
    with django_assert_num_queries(1):
        found = standings([waiting, decided, unasked])
    assert str(unasked.pk) not in found
    assert [
        (standing.is_decided, standing.is_open)
        for standing in (found[str(waiting.pk)], found[str(decided.pk)])
    ] == [(False, True), (True, False)]
