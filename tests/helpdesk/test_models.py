from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from helpdesk.models import Comment, Queue, Ticket


def test_a_ticket_shows_its_number_and_subject(make_ticket: Any) -> None:
    ticket = make_ticket(subject="Lamp")
    assert str(ticket) == f"#{ticket.pk} Lamp"
    assert ticket.get_absolute_url() == f"/tickets/{ticket.pk}/"


def test_an_external_id_is_unique_but_optional(make_ticket: Any) -> None:
    make_ticket(), make_ticket()
    make_ticket(external_id="a")
    with pytest.raises(IntegrityError), transaction.atomic():
        make_ticket(external_id="a")


def test_a_queue_with_tickets_is_not_deleted(make_ticket: Any, billing: Queue) -> None:
    make_ticket(queue=billing)
    with pytest.raises(ProtectedError):
        billing.delete()


def test_comments_are_in_order_and_go_with_their_ticket(make_ticket: Any) -> None:
    ticket = make_ticket()
    first = Comment.objects.create(ticket=ticket, body="first")
    second = Comment.objects.create(ticket=ticket, body="second")
    assert list(ticket.comments.all()) == [first, second]
    ticket.delete()
    assert not Comment.objects.exists()


@pytest.mark.parametrize("words", ["\x00", "#", "99999999999999999999999", "% _ '", "²"])
def test_odd_search_words_do_no_harm(make_ticket: Any, words: str) -> None:
    make_ticket()
    list(Ticket.objects.search(words))
