from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

import ticket_priority
from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions.overrides import record_override
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_overridden

pytestmark = pytest.mark.django_db


def test_an_override_says_who_when_from_to_and_why(
    active_model: ModelVersion, admin_user: Any
) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    ticket_priority.override(ticket, Priority.LOW, user=admin_user, reason="A drill.", via="page")
    assert ticket.priority == Priority.LOW
    ticket.refresh_from_db()
    assert ticket.priority == Priority.LOW
    record = Override.objects.for_instance(ticket).get()
    assert (record.user, record.from_priority, record.to_priority) == (admin_user, 2, 0)
    assert (record.reason, record.via) == ("A drill.", "page")
    assert record.prediction == Prediction.objects.get()
    assert record.created_at is not None


def test_nothing_else_of_the_ticket_is_written_but_its_date_of_change(db: None) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    Ticket.objects.filter(pk=ticket.pk).update(subject="changed by somebody else")
    before = Ticket.objects.get(pk=ticket.pk).updated_at
    ticket_priority.override(ticket, Priority.MEDIUM)
    fresh = Ticket.objects.get(pk=ticket.pk)
    assert fresh.subject == "changed by somebody else"
    assert fresh.updated_at > before


def test_the_value_overruled_is_the_databases_not_the_stale_ones(db: None) -> None:
    stale = Ticket.objects.create(**OUTAGE, priority=Priority.LOW)
    Ticket.objects.update(priority=Priority.HIGH)
    record = ticket_priority.override(stale, Priority.MEDIUM)
    assert record.from_priority == Priority.HIGH


def test_a_confirmation_is_an_override_to_the_same(db: None) -> None:
    ticket = Ticket.objects.create(**OUTAGE, priority=Priority.LOW)
    record = ticket_priority.override(ticket, Priority.LOW)
    assert (record.from_priority, record.to_priority) == (0, 0)


def test_an_anonymous_user_is_recorded_as_nobody(db: None) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    record = record_override(ticket, before=None, after=2, user=AnonymousUser())
    assert record.user is None


def test_a_deleted_ticket_cannot_be_overruled(db: None) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    Ticket.objects.filter(pk=ticket.pk)._raw_delete("default")
    with pytest.raises(Ticket.DoesNotExist):
        ticket_priority.override(ticket, Priority.LOW)
    assert not Override.objects.exists()


def test_an_unknown_priority_writes_nothing(db: None) -> None:
    ticket = Ticket.objects.create(**OUTAGE, priority=Priority.LOW)
    with pytest.raises(ValueError, match="3"):
        ticket_priority.override(ticket, 3)
    ticket.refresh_from_db()
    assert ticket.priority == Priority.LOW
    assert not Override.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_public_signal_tells_of_an_override() -> None:
    seen: list[Any] = []

    def receiver(**kwargs: Any) -> None:
        seen.append(kwargs["override"].to_priority)

    priority_overridden.connect(receiver)
    try:
        ticket_priority.override(Ticket.objects.create(**OUTAGE), Priority.HIGH)
    finally:
        priority_overridden.disconnect(receiver)
    assert seen == [Priority.HIGH]
