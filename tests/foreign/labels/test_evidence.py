"""A predicted priority that reaches another row, or comes back, is nobody's label."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.forms.models import model_to_dict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from reversion import create_revision
from reversion.models import Version

import ticket_priority
from tests.admin.pages import form_of
from tests.foreign.labels.models import REGISTERED, Ticket
from ticket_priority.models import ErasedTicket, ModelVersion, Prediction
from ticket_priority.predictions import outbox, reclassify
from ticket_priority.priorities import Priority
from ticket_priority.sources import registry
from ticket_priority.training.labels import labelled_texts, labels_of, labels_since

pytestmark = pytest.mark.django_db

OUTAGE = {"subject": "outage", "body": "fire breach down"}
State = Prediction.State


@pytest.fixture(autouse=True)
def source(active_model: ModelVersion) -> Iterator[Any]:
    """Attach the host as its own field does."""
    registered = next(found for found in REGISTERED if found.model is Ticket)
    yield registry.register(Ticket, text_fields=registered.text_fields, priority_field="priority")
    registry.unregister(Ticket)


def labels(dropped: Counter[str] | None = None) -> dict[int, tuple[int, str]]:
    rows = labelled_texts(registry.get_source(Ticket), dropped=dropped)
    return {int(row.pk): (row.label, row.provenance) for row in rows}


def predicted(**fields: Any) -> Ticket:
    ticket = Ticket.objects.create(**{**OUTAGE, **fields})
    assert ticket.priority == Priority.HIGH
    return Ticket.objects.get(pk=ticket.pk)


def values_of(ticket: Ticket) -> dict[str, Any]:
    return model_to_dict(ticket, exclude=["id"])


def as_new(ticket: Ticket) -> Ticket:
    ticket.pk, ticket._state.adding = None, True
    ticket.save()
    return ticket


def by_dict(ticket: Ticket) -> Ticket:
    values = {name: value for name, value in ticket.__dict__.items() if name != "_state"}
    return as_new(Ticket(**{**values, "id": None}))


def in_bulk(ticket: Ticket) -> Ticket:
    (made,) = Ticket.objects.bulk_create([Ticket(**values_of(ticket))])
    return Ticket.objects.get(pk=made.pk) if made.pk else Ticket.objects.latest("pk")


def from_a_fixture(ticket: Ticket) -> Ticket:
    made = Ticket(**values_of(ticket))
    made.save_base(raw=True)
    return made


COPIES: dict[str, Callable[[Ticket], Ticket]] = {
    "as new": as_new,
    "model_to_dict": lambda ticket: Ticket.objects.create(**values_of(ticket)),
    "__dict__": by_dict,
    "copy.copy": lambda ticket: as_new(copy.copy(ticket)),
    "copy.deepcopy": lambda ticket: as_new(copy.deepcopy(ticket)),
    "pickle": lambda ticket: as_new(pickle.loads(pickle.dumps(ticket))),  # noqa: S301
    "bulk_create": in_bulk,
    "fixture": from_a_fixture,
}


def test_only_the_tickets_are_a_source() -> None:
    assert [found.label for found in REGISTERED] == ["labels.Ticket"]


def test_the_history_is_left_alone() -> None:
    ticket = predicted()
    for number in range(3):
        ticket.number = number
        ticket.save()
    assert Prediction.objects.count() == 1
    assert ticket.history.count() == 4
    assert {row.priority for row in ticket.history.all()} == {Priority.HIGH}


class TestACopy:
    @pytest.fixture(params=COPIES.values(), ids=COPIES.keys())
    def copied(self, request: Any) -> Callable[[Ticket], Ticket]:
        copied: Callable[[Ticket], Ticket] = request.param
        return copied

    def test_of_a_prediction_is_no_label(self, copied: Callable[[Ticket], Ticket]) -> None:
        made = copied(predicted())
        assert Ticket.objects.count() == 2
        assert made.priority == Priority.HIGH
        assert labels() == {}
        assert labels_of(registry.get_source(Ticket), [str(made.pk)]) == {}
        assert labels_since(registry.get_source(Ticket), None) == 0

    def test_is_a_label_once_a_person_decides(self, copied: Callable[[Ticket], Ticket]) -> None:
        made = copied(predicted())
        ticket_priority.override(made, Priority.HIGH)
        assert set(labels()) == {made.pk}

    def test_that_a_person_changed_is_a_label(self, copied: Callable[[Ticket], Ticket]) -> None:
        made = copied(predicted())
        Ticket.objects.filter(pk=made.pk).update(priority=Priority.LOW)
        assert {pk: label for pk, (label, _why) in labels().items()} == {made.pk: Priority.LOW}

    def test_of_what_a_worker_predicted_is_no_label(
        self, copied: Callable[[Ticket], Ticket], configure: Callable[..., None]
    ) -> None:
        configure(MODE="async")
        ticket = Ticket.objects.create(**OUTAGE)
        outbox.drain()
        copied(Ticket.objects.get(pk=ticket.pk))
        assert labels() == {}

    def test_of_a_decision_is_a_label(self, copied: Callable[[Ticket], Ticket]) -> None:
        ticket = predicted()
        ticket_priority.override(ticket, Priority.LOW)
        made = copied(Ticket.objects.get(pk=ticket.pk))
        assert labels()[made.pk] == (Priority.LOW, "host")


@pytest.mark.parametrize("copied", [as_new, by_dict], ids=["as new", "__dict__"])
def test_a_copy_is_no_label_when_the_original_is_gone(copied: Callable[[Any], Ticket]) -> None:
    ticket = predicted()
    again = copied(copied(Ticket.objects.get(pk=ticket.pk)))
    Ticket.objects.exclude(pk=again.pk).delete()
    assert labels() == {}


def test_no_model_changes_what_may_be_a_persons_word() -> None:
    predicted()
    made = Ticket.objects.create(**OUTAGE, priority=Priority.HIGH)
    Ticket.objects.filter(pk=made.pk).update(subject="typo", body="font colour wish")
    reclassify.classify_instances([Ticket.objects.get(pk=made.pk)])
    assert Ticket.objects.get(pk=made.pk).priority == Priority.HIGH


def test_an_older_ticket_with_the_same_text_keeps_its_label() -> None:
    (older,) = Ticket.objects.bulk_create([Ticket(**OUTAGE, priority=Priority.HIGH)])
    predicted()
    assert list(labels().values()) == [(Priority.HIGH, "host")]


def test_another_text_or_another_priority_is_a_label() -> None:
    predicted()
    other = Ticket.objects.create(subject="outage at night", priority=Priority.HIGH)
    lower = Ticket.objects.create(**OUTAGE, priority=Priority.MEDIUM)
    assert labels() == {
        other.pk: (Priority.HIGH, "host"),
        lower.pk: (Priority.MEDIUM, "host"),
    }


def test_an_object_that_is_saved_again_after_a_rollback_is_no_label() -> None:
    ticket = Ticket(**OUTAGE)
    with transaction.atomic():
        ticket.save()
        transaction.set_rollback(True)
    ticket.pk, ticket._state.adding = None, True
    ticket.save()
    assert labels() == {}


def test_a_ticket_with_a_priority_costs_one_query_more() -> None:
    predicted()
    with CaptureQueriesContext(connection) as queries:
        Ticket.objects.create(subject="typo", priority=Priority.LOW)
    ours = [query["sql"] for query in queries if "ticket_priority_prediction" in query["sql"]]
    assert [sql.split()[0] for sql in ours] == ["SELECT"]


class TestSaveAsNew:
    pytestmark = pytest.mark.urls("tests.foreign.labels.urls")

    def save_as_new(self, client: Client, ticket: Ticket, **values: Any) -> Ticket:
        page = f"/admin/labels/ticket/{ticket.pk}/change/"
        given = form_of(client.get(page), "ticket_form").values
        given = {name: value for name, value in given.items() if not name.startswith("_")}
        answer = client.post(page, {**given, "_saveasnew": "1", **values})
        assert answer.status_code == 302
        made: Ticket = Ticket.objects.latest("pk")
        assert made.pk != ticket.pk
        return made

    def test_keeps_the_prediction_where_the_priority_was_not_touched(
        self, admin_client: Client
    ) -> None:
        made = self.save_as_new(admin_client, predicted(), subject="Another one", body="")
        assert made.priority == Priority.HIGH
        assert labels() == {}
        page = admin_client.get(f"/admin/labels/ticket/{made.pk}/change/").content.decode()
        assert re.findall("set by a person|set by the model", page) == ["set by the model"]

    def test_is_a_persons_word_where_it_was(self, admin_client: Client) -> None:
        made = self.save_as_new(
            admin_client, predicted(), subject="Another one", priority=str(Priority.LOW.value)
        )
        assert labels() == {made.pk: (Priority.LOW, "host")}

    def test_of_a_decided_ticket_keeps_the_decision(self, admin_client: Client) -> None:
        ticket = predicted()
        ticket_priority.override(ticket, Priority.LOW)
        made = self.save_as_new(admin_client, ticket, subject="Another one")
        assert labels()[made.pk] == (Priority.LOW, "host")


class TestATicketThatComesBack:
    def recovered(self) -> Ticket:
        with create_revision():
            ticket = Ticket.objects.create(**OUTAGE)
        ticket_priority.override(ticket, Priority.LOW)
        ticket.delete()
        Version.objects.get_deleted(Ticket)[0].revision.revert()
        return Ticket.objects.get()

    def test_from_a_version_is_no_label(self) -> None:
        assert self.recovered().priority == Priority.HIGH
        dropped: Counter[str] = Counter()
        assert labels(dropped) == {}
        assert dropped == {"predictions were erased": 1}

    def test_from_the_history_is_no_label(self) -> None:
        ticket = predicted()
        ticket.delete()
        Ticket.history.earliest().instance.save()
        assert Ticket.objects.get().priority == Priority.HIGH
        assert labels() == {}

    def test_is_a_label_once_a_person_decides(self) -> None:
        ticket = self.recovered()
        ticket_priority.override(ticket, Priority.HIGH)
        assert labels() == {ticket.pk: (Priority.HIGH, "confirmation")}

    def test_twice_is_none_either(self) -> None:
        self.recovered().delete()
        Version.objects.get_deleted(Ticket)[0].revision.revert()
        assert labels() == {}

    def test_whose_priority_a_person_gave_is_a_label(self) -> None:
        with create_revision():
            ticket = Ticket.objects.create(**OUTAGE, priority=Priority.LOW)
        ticket.delete()
        Version.objects.get_deleted(Ticket)[0].revision.revert()
        assert list(labels().values()) == [(Priority.LOW, "host")]
        assert not ErasedTicket.objects.exists()


def test_a_ticket_whose_predictions_were_erased_is_no_label() -> None:
    ticket = predicted()
    call_command("erase_priority_data", ticket=[f"labels.Ticket:{ticket.pk}"], verbosity=0)
    assert not Prediction.objects.exists()
    assert labels() == {}


class TestTheHostsObject:
    def test_is_as_without_the_plugin(self) -> None:
        with ticket_priority.muted():
            plain = Ticket.objects.create(**OUTAGE)
        ticket = Ticket.objects.create(**OUTAGE)
        ticket.save()
        assert ticket.__dict__.keys() == plain.__dict__.keys()
        assert len(pickle.dumps(ticket)) < len(pickle.dumps(plain)) + 10

    @pytest.mark.django_db(transaction=True)
    def test_is_not_kept_alive(self) -> None:
        ticket = Ticket.objects.create(**OUTAGE)
        gone = weakref.ref(ticket)
        del ticket
        gc.collect()
        assert gone() is None
