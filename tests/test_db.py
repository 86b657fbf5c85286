"""Reading a table in pages by key."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from helpdesk.models import Ticket
from ticket_priority.db import pages_by_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def keys() -> list[int]:
    """Create seven tickets; return their keys in ascending order."""
    for number in range(7):
        Ticket.objects.create(subject=f"Ticket {number}", priority=number % 3)
    return list(Ticket.objects.order_by("pk").values_list("pk", flat=True))


def read(rows: Any, size: int, **options: Any) -> list[list[Any]]:
    return [[row.pk for row in page] for page in pages_by_key(rows, size, **options)]


def test_every_row_is_read_once_in_the_order_of_the_keys(keys: list[int]) -> None:
    pages = read(Ticket.objects.order_by("-subject"), 3)
    assert pages == [keys[:3], keys[3:6], keys[6:]]
    assert read(Ticket.objects.filter(priority=0), 2) == [[keys[0], keys[3]], [keys[6]]]
    assert read(Ticket.objects.none(), 3) == []


@pytest.mark.parametrize(
    ("limit", "sizes"), [(0, []), (2, [2]), (3, [3]), (5, [3, 2]), (7, [3, 3, 1]), (99, [3, 3, 1])]
)
def test_no_more_rows_are_read_than_the_limit(
    keys: list[int], limit: int, sizes: list[int]
) -> None:
    pages = read(Ticket.objects.all(), 3, limit=limit)
    assert [len(page) for page in pages] == sizes
    assert [key for page in pages for key in page] == keys[:limit]


def test_a_page_is_read_when_it_is_asked_for(keys: list[int]) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        pages = pages_by_key(Ticket.objects.all(), 3)
        assert not queries
        assert len(list(islice(pages, 2))) == 2
        assert len(queries) == 2


def test_rows_that_go_or_come_meanwhile_move_no_other_row(keys: list[int]) -> None:
    pages = pages_by_key(Ticket.objects.all(), 3)
    first = next(pages)
    Ticket.objects.filter(pk__in=[row.pk for row in first]).delete()
    new = Ticket.objects.create(subject="Another")
    assert [row.pk for page in pages for row in page] == [*keys[3:], new.pk]


@pytest.mark.parametrize(("until_empty", "sizes"), [(False, [3, 3, 1]), (True, [3, 3, 1, 1])])
def test_rows_that_come_after_a_short_page_are_read_on_demand(
    keys: list[int], until_empty: bool, sizes: list[int]
) -> None:
    found = []
    for page in pages_by_key(Ticket.objects.all(), 3, until_empty=until_empty):
        found.append(len(page))
        if len(found) == 3:
            Ticket.objects.create(subject="Another")
    assert found == sizes


def test_distinct_values_of_a_column_are_paged_by_themselves(keys: list[int]) -> None:
    values = Ticket.objects.values_list("priority", flat=True).distinct()
    assert list(pages_by_key(values, 2, key="priority")) == [[0, 1], [2]]
