from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ticket_priority
from helpdesk.models import Ticket
from ticket_priority import datasets
from ticket_priority.exceptions import DatasetError
from ticket_priority.interfaces import LabelledText
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.outbox import drain
from ticket_priority.priorities import Priority
from ticket_priority.sources import get_source


def labels() -> dict[str, int]:
    rows = datasets.labelled_texts(get_source(Ticket))
    return {row.text: row.label for row in rows}


def bulk(*rows: tuple[str, int | None]) -> None:
    Ticket.objects.bulk_create([Ticket(description=text, priority=label) for text, label in rows])


@pytest.mark.django_db
def test_a_label_is_what_a_person_set(active_model: ModelVersion) -> None:
    bulk(("imported low", 0), ("imported unset", None))
    Ticket.objects.create(subject="outage predicted and never reviewed")
    reviewed = Ticket.objects.create(subject="outage overruled")
    ticket_priority.override(reviewed, Priority.LOW)
    confirmed = Ticket.objects.create(subject="outage confirmed")
    ticket_priority.override(confirmed, Priority.HIGH)
    assert labels() == {"imported low": 0, "outage overruled": 0, "outage confirmed": 2}


@pytest.mark.django_db
def test_a_suggestion_followed_in_the_hosts_own_form_is_a_label(
    active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "suggest"}
    ticket = Ticket.objects.create(subject="outage")
    drain()
    Ticket.objects.filter(pk=ticket.pk).update(priority=2)
    assert Prediction.objects.get().state == Prediction.State.SUGGESTED
    assert labels() == {"outage": 2}


@pytest.mark.django_db
def test_what_people_change_in_the_hosts_own_way_is_a_label(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(subject="outage")
    Ticket.objects.filter(pk=ticket.pk).update(priority=0)
    assert labels() == {"outage": 0}
    ticket_priority.override(ticket, Priority.MEDIUM)
    Ticket.objects.filter(pk=ticket.pk).update(priority=2)
    assert labels() == {"outage": 1}, "a stale form that writes the prediction back is no label"


@pytest.mark.django_db
def test_what_a_stale_form_put_back_is_no_label_until_somebody_decides(
    active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "suggest"}
    ticket = Ticket.objects.create(subject="outage")
    drain()
    Prediction.objects.update(reason=Prediction.Reason.STALE_FORM)
    Ticket.objects.filter(pk=ticket.pk).update(priority=1)
    dropped: Counter[str] = Counter()
    assert list(datasets.labelled_texts(get_source(Ticket), dropped=dropped)) == []
    assert dropped == {"put back by a stale form": 1}
    ticket_priority.override(ticket, Priority.MEDIUM)
    assert labels() == {"outage": 1}


@pytest.mark.django_db
def test_the_last_override_counts() -> None:
    bulk(("a", 0))
    ticket = Ticket.objects.get()
    for priority in (Priority.HIGH, Priority.MEDIUM):
        ticket_priority.override(ticket, priority)
    assert labels() == {"a": 1}


@pytest.mark.django_db
def test_empty_texts_are_left_out_and_counted() -> None:
    bulk((" \u200b", 0), ("text", 1))
    dropped: Counter[str] = Counter()
    rows = list(datasets.labelled_texts(get_source(Ticket), dropped=dropped))
    assert [row.text for row in rows] == ["text"]
    assert dropped == {"empty text": 1}


@pytest.mark.django_db
def test_labels_cost_a_constant_number_of_queries(django_assert_num_queries: Any) -> None:
    bulk(*((f"ticket {index}", index % 3) for index in range(50)))
    get_source(Ticket)
    labels()
    with django_assert_num_queries(4):
        labels()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "There are 0 usable tickets"),
        ([("word " * index, 1) for index in range(1, 80)], "All 79 labelled tickets are medium"),
        (
            [(f"{'word ' * index}", int(index < 3)) for index in range(1, 80)],
            "Only 2 labelled tickets are medium",
        ),
        ([("", index % 3) for index in range(80)], "80 empty text"),
    ],
    ids=["none", "one class", "too few of a class", "empty"],
)
def test_too_little_to_learn_from_is_said(rows: list[tuple[str, int]], message: str) -> None:
    bulk(*rows)
    with pytest.raises(DatasetError, match=message):
        datasets.build([get_source(Ticket)])


def example(text: str, label: int) -> LabelledText:
    return LabelledText(text=text, label=label, group=datasets.near_copy_key(text))


def test_duplicates_go_and_the_majority_decides() -> None:
    dropped: Counter[str] = Counter()
    rows = [example("a", 1), example("a", 1), example("a", 2), example("b", 0), example("b", 2)]
    kept = datasets.deduplicate(rows, dropped=dropped)
    assert [(row.text, row.label) for row in kept] == [("a", 1)]
    assert dropped == {"duplicate": 2, "conflicting labels": 2}


@given(
    st.lists(st.tuples(st.text("abc 12!", min_size=1, max_size=8), st.integers(0, 2)), max_size=80)
)
def test_splits_share_no_near_copies_and_lose_nothing(pairs: list[tuple[str, int]]) -> None:
    rows = [example(text, label) for text, label in pairs]
    splits = datasets.split(rows)
    assert sum(map(len, splits)) == len(rows)
    groups = [{row.group for row in part} for part in splits]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_a_split_is_stratified_and_the_same_every_time() -> None:
    rows = [example(f"{'word ' * index}x", index % 3) for index in range(1, 301)]
    train, validation, test = datasets.split(rows)
    assert (len(train), len(validation), len(test)) == (210, 45, 45)
    assert Counter(row.label for row in test) == {0: 15, 1: 15, 2: 15}
    again = datasets.split(list(reversed(rows)))
    assert {row.text for row in again[2]} == {row.text for row in test}


def test_few_rows_move_when_tickets_are_added() -> None:
    rows = [example(f"{'word ' * index}x", index % 3) for index in range(1, 301)]
    more = rows + [example(f"{'other ' * index}y", index % 3) for index in range(1, 31)]
    before = {row.text for row in datasets.split(rows)[2]}
    after = {row.text for row in datasets.split(more)[0]}
    assert len(before & after) <= 3


def test_the_fingerprint_changes_with_a_label_and_not_with_the_order() -> None:
    rows = [example("a", 1), example("b", 2)]
    assert datasets.fingerprint(rows) == datasets.fingerprint(rows[::-1])
    assert datasets.fingerprint(rows) != datasets.fingerprint([rows[0], example("b", 1)])
