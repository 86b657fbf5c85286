from __future__ import annotations

import socket
import threading
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

import ticket_priority
from helpdesk.models import Ticket
from tests.predictions.test_on_save import INVOICE, OUTAGE, TYPO, only_prediction
from tests.support.settings import overlay
from ticket_priority.classifiers import get_classifier
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.workers import notify_workers
from ticket_priority.priorities import Priority
from ticket_priority.queues import django_q, reset

pytestmark = pytest.mark.django_db

State, Reason = Prediction.State, Prediction.Reason


@pytest.fixture(params=["async"])
def mode(request: pytest.FixtureRequest, settings: Any, artifact_root: Any) -> str:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": request.param}
    return str(request.param)


def test_a_new_ticket_is_pending_until_a_worker_comes(
    mode: str, active_model: ModelVersion
) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    assert ticket.priority is None
    assert only_prediction(ticket).state == State.PENDING
    assert outbox.drain() == 1
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH
    prediction = only_prediction(ticket)
    assert (prediction.state, prediction.attempts, prediction.claim) == (State.APPLIED, 1, "")
    assert prediction.model_version == active_model


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("atomic", [True, False])
def test_the_queue_is_told_of_a_ticket(mode: str, active_model: ModelVersion, atomic: bool) -> None:
    from django_q.models import OrmQ

    OrmQ.objects.all().delete()
    with transaction.atomic() if atomic else nullcontext():
        Ticket.objects.create(**OUTAGE)
    assert OrmQ.objects.count() == 1
    with transaction.atomic():
        Ticket.objects.create(**OUTAGE)
        transaction.set_rollback(True)
    assert OrmQ.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_one_waiting_message_is_enough(mode: str, active_model: ModelVersion) -> None:
    from django_q.models import OrmQ

    OrmQ.objects.all().delete()
    for _turn in range(5):
        Ticket.objects.create(**OUTAGE)
    assert OrmQ.objects.count() == 1
    with transaction.atomic():
        Ticket.objects.create(**OUTAGE)
        # A worker takes it before the commit, and so does not see the ticket.
        OrmQ.objects.update(lock=timezone.now() + timedelta(hours=1))
    assert OrmQ.objects.count() == 2
    Ticket.objects.create(**OUTAGE)
    assert OrmQ.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_without_workers_each_request_takes_some_of_what_waits(
    active_model: ModelVersion, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waiting() -> int:
        return Prediction.objects.filter(state=State.PENDING).count()

    configure(MODE="async")
    for _turn in range(7):
        Ticket.objects.create(**OUTAGE)
    configure(QUEUE={"BACKEND": "ticket_priority.queues.inline.InlineQueue"}, MODE="sync")
    monkeypatch.setattr("ticket_priority.predictions.workers.IN_REQUEST", 3)
    active_model.activate()
    assert waiting() == 4
    for left in (1, 0, 0):
        assert Ticket.objects.create(**OUTAGE).priority == Priority.HIGH
        assert waiting() == left


def test_another_broker_is_told_after_the_commit(
    mode: str,
    active_model: ModelVersion,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    from django_q.conf import Conf

    monkeypatch.setattr(Conf, "ORM", None)
    with django_capture_on_commit_callbacks() as callbacks:
        Ticket.objects.create(**OUTAGE)
    assert callbacks == [notify_workers]


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_fails_costs_neither_ticket_nor_prediction(
    mode: str, active_model: ModelVersion
) -> None:
    from django_q.models import OrmQ

    table = OrmQ._meta.db_table
    with connection.schema_editor() as editor:
        editor.alter_db_table(OrmQ, table, "set_aside")
    try:
        with transaction.atomic():
            ticket = Ticket.objects.create(**OUTAGE)
        Ticket.objects.create(**TYPO)
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(OrmQ, "set_aside", table)
    assert only_prediction(ticket).state == State.PENDING
    assert outbox.drain() == 2


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_hangs_or_is_down_holds_up_no_save(
    mode: str, active_model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that takes the connection and says no word, and then one that is gone."""
    from django_q.conf import Conf

    monkeypatch.setattr(django_q, "BROKER_SECONDS", 0.1)
    saved: list[int] = []

    def save() -> None:
        try:
            saved.extend(Ticket.objects.create(**OUTAGE).pk for _ in range(3))
        finally:
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(Conf, "ORM", None)
        monkeypatch.setattr(Conf, "REDIS", {"port": silent.getsockname()[1]})
        reset()
        saving = threading.Thread(target=save, daemon=True)
        saving.start()
        saving.join(30)
        reset()
    assert len(saved) == 3, "a save waits for the broker"
    Ticket.objects.create(**OUTAGE)
    reset()
    assert outbox.drain() == 4


def test_a_ticket_with_a_priority_is_not_queued(mode: str, active_model: ModelVersion) -> None:
    Ticket.objects.create(**OUTAGE, priority=Priority.LOW)
    assert not Prediction.objects.exists()


def test_a_rolled_back_ticket_leaves_nothing_pending(mode: str, active_model: ModelVersion) -> None:
    with transaction.atomic():
        Ticket.objects.create(**OUTAGE)
        transaction.set_rollback(True)
    assert not Prediction.objects.exists()


@pytest.mark.parametrize("mode", ["suggest"], indirect=True)
def test_a_suggestion_writes_no_ticket(mode: str, active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    outbox.drain()
    prediction = only_prediction(ticket)
    assert (prediction.state, prediction.priority) == (State.SUGGESTED, Priority.HIGH)
    ticket.refresh_from_db()
    assert ticket.priority is None


def test_a_person_who_was_quicker_wins(mode: str, active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    Ticket.objects.filter(pk=ticket.pk).update(priority=Priority.LOW)
    outbox.drain()
    ticket.refresh_from_db()
    assert ticket.priority == Priority.LOW
    prediction = only_prediction(ticket)
    assert (prediction.state, prediction.reason) == (State.SUPERSEDED, Reason.PERSON_DECIDED)


def test_an_override_drops_what_is_pending(mode: str, active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    ticket_priority.override(ticket, Priority.LOW)
    assert outbox.drain() == 0
    assert only_prediction(ticket).state == State.SUPERSEDED


def test_an_override_while_the_model_is_busy_wins(mode: str, active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    (claimed,) = outbox._claim(1)
    ticket_priority.override(ticket, Priority.LOW)
    assert list(outbox._decide_claimed([claimed], get_classifier())) == [False]
    ticket.refresh_from_db()
    assert ticket.priority == Priority.LOW


def test_a_deleted_ticket_is_closed(mode: str, active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    Ticket.objects.filter(pk=ticket.pk)._raw_delete("default")
    assert outbox.drain() == 1
    assert Prediction.objects.get().reason == Reason.TICKET_GONE


def test_drain_works_off_many_batches(mode: str, active_model: ModelVersion, settings: Any) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"BATCH_SIZE": 4})
    for index in range(10):
        Ticket.objects.create(**(OUTAGE, INVOICE, TYPO)[index % 3])
    assert outbox.drain() == 10
    assert Ticket.objects.filter(priority=Priority.HIGH).count() == 4


def test_one_poisonous_ticket_does_not_hold_up_the_others(
    mode: str, active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={"CLASSIFIERS": {"transformer": "tests.support.classifiers.PoisonableClassifier"}},
        QUEUE={"MAX_ATTEMPTS": 2},
    )
    good = Ticket.objects.create(**OUTAGE)
    bad = Ticket.objects.create(subject="poison", description="outage")
    assert outbox.drain() == 1
    assert only_prediction(good).state == State.APPLIED
    waiting = only_prediction(bad)
    assert (waiting.state, waiting.reason) == (State.PENDING, Reason.MODEL_ERROR)
    for _ in range(2):
        Prediction.objects.update(claimed_at=timezone.now() - timedelta(hours=1))
        outbox.drain()
    given_up = only_prediction(bad)
    assert (given_up.state, given_up.attempts) == (State.FAILED, 2)


def test_what_killed_a_worker_takes_no_batch_with_it(
    mode: str, active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, QUEUE={"MAX_ATTEMPTS": 2})
    for _ in range(5):
        Ticket.objects.create(**OUTAGE)
    assert len(outbox._claim(5)) == 5
    Prediction.objects.update(claimed_at=timezone.now() - timedelta(hours=1))
    assert len(outbox._claim(5)) == 1
    assert outbox.drain() == 4


def test_the_claim_of_a_killed_worker_expires(mode: str, active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    outbox._claim(1)
    assert outbox.drain() == 0
    Prediction.objects.update(claimed_at=timezone.now() - timedelta(hours=1))
    assert outbox.drain() == 1
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH


def test_a_worker_that_was_overtaken_applies_nothing(mode: str, active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    (slow,) = outbox._claim(1)
    Prediction.objects.update(claimed_at=timezone.now() - timedelta(hours=1))
    assert outbox.drain() == 1
    Ticket.objects.filter(pk=ticket.pk).update(priority=None)
    assert list(outbox._decide_claimed([slow], get_classifier())) == [False]
    ticket.refresh_from_db()
    assert ticket.priority is None


@pytest.mark.django_db(transaction=True)
def test_workers_side_by_side_decide_each_ticket_once(
    mode: str, active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"BATCH_SIZE": 3})
    for _ in range(30):
        Ticket.objects.create(**OUTAGE)
    decided: list[int] = []

    def work() -> None:
        try:
            decided.append(outbox.drain())
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(decided) == 30
    assert len(decided) == 4
    assert set(Prediction.objects.values_list("state", "attempts")) == {(State.APPLIED, 1)}
    assert Ticket.objects.filter(priority=Priority.HIGH).count() == 30
