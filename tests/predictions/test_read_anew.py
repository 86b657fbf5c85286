"""The object of a new ticket is saved again: with what it read, or with what it never knew."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import outbox
from ticket_priority.priorities import Priority

pytestmark = pytest.mark.django_db


@pytest.fixture
def ticket(active_model: ModelVersion, configure: Callable[..., None]) -> Ticket:
    """A ticket that a worker has answered since."""
    configure(MODE="async")
    ticket = Ticket.objects.create(**OUTAGE)
    outbox.drain()
    return ticket


def stored(ticket: Ticket) -> int | None:
    return Ticket.objects.values_list("priority", flat=True).get(pk=ticket.pk)


def test_a_priority_that_a_person_empties_stays_empty(ticket: Ticket) -> None:
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH
    ticket.priority = None
    ticket.save()
    assert stored(ticket) is None
    ticket.save()
    assert stored(ticket) is None


def test_also_where_only_the_priority_is_saved(ticket: Ticket) -> None:
    ticket.refresh_from_db(fields=["priority"])
    ticket.priority = None
    ticket.save(update_fields=["priority"])
    assert stored(ticket) is None


def test_an_object_that_never_knew_of_the_prediction_does_not_undo_it(ticket: Ticket) -> None:
    ticket.subject = "Outage, again"
    ticket.save()
    assert stored(ticket) == ticket.priority == Priority.HIGH
