"""What becomes of a ticket when the database fails just where the plugin asks it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import Error, OperationalError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django_q.models import OrmQ

import ticket_priority
from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, TYPO, only_prediction
from tests.support.classifiers import FaultyClassifier
from tests.support.faults import (
    before_statement,
    lose_connection,
    short_timeout,
    write_lock,
    write_lock_at,
)
from tests.uuid_host.models import Case
from ticket_priority.checks.sources import MIDDLEWARE
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.priorities import Priority
from ticket_priority.queues.django_q import DjangoQQueue
from ticket_priority.signals import priority_predicted

pytestmark = pytest.mark.django_db(transaction=True)

LOST = (Error, sqlite3.Error)
State, Reason = Prediction.State, Prediction.Reason
ON_SERVERS = pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has no deadlocks")


class TestLost:
    """Who swallows the error that ended a transaction has the host believe that it saved."""

    @pytest.mark.parametrize(
        ("mode", "words"),
        [
            ("sync", ("SELECT", "modelversion")),
            ("sync", ("INSERT", "ticket_priority_prediction")),
            ("async", ("INSERT", "ticket_priority_prediction")),
            ("async", ("INSERT", "django_q_ormq")),
        ],
    )
    def test_a_new_ticket_that_is_lost_is_not_passed_off_as_saved(
        self,
        active_model: ModelVersion,
        configure: Callable[..., None],
        mode: str,
        words: tuple[str, ...],
    ) -> None:
        configure(MODE=mode)
        # A message that waits already would not be sent once more.
        OrmQ.objects.all().delete()
        with (
            before_statement(*words, fault=lose_connection),
            pytest.raises(LOST),
            transaction.atomic(),
        ):
            Ticket.objects.create(**OUTAGE)
        assert not Ticket.objects.exists()
        assert not Prediction.objects.exists()

    def test_nor_is_a_change_of_one(self, attach: Callable[..., None]) -> None:
        attach(record_changes=True)
        case = Case.objects.create(body="outage", urgency=4)
        case.urgency = 2
        with (
            before_statement("SELECT", "uuid_host_case", fault=lose_connection),
            pytest.raises(LOST),
            transaction.atomic(),
        ):
            case.save()
        assert Case.objects.get().urgency == 4

    def test_nor_is_its_deletion(self, active_model: ModelVersion) -> None:
        ticket = Ticket.objects.create(**OUTAGE)
        with (
            before_statement("DELETE", "ticket_priority_override", fault=lose_connection),
            pytest.raises(LOST),
        ):
            ticket.delete()
        assert Ticket.objects.exists()

    @ON_SERVERS
    def test_a_deadlock_costs_the_prediction_or_is_the_hosts_to_repeat(
        self, active_model: ModelVersion
    ) -> None:
        first = Ticket.objects.create(**TYPO)
        others = [Ticket.objects.create(**TYPO).pk for _ in range(20)]
        Prediction.objects.all().delete()
        holds, waits = threading.Event(), threading.Event()

        def hold_the_other_way_round() -> None:
            try:
                with transaction.atomic():
                    # InnoDB gives up whoever has changed less.
                    Ticket.objects.filter(pk__in=others).update(subject="busy")
                    _lock_predictions()
                    holds.set()
                    waits.wait(10)
                    time.sleep(0.3)
                    Ticket.objects.filter(pk=first.pk).update(subject="theirs")
            finally:
                connection.close()

        other = threading.Thread(target=hold_the_other_way_round)
        told = ""
        try:
            with (
                before_statement("INSERT", "ticket_priority_prediction", fault=waits.set),
                transaction.atomic(),
            ):
                Ticket.objects.filter(pk=first.pk).update(subject="ours")
                other.start()
                holds.wait(10)
                Ticket.objects.create(**OUTAGE)
            told = "saved"
        except OperationalError:
            told = "repeat"
        finally:
            other.join()
        assert told == ("saved" if connection.vendor == "postgresql" else "repeat")
        assert Ticket.objects.filter(subject="outage").count() == (told == "saved")
        assert not Prediction.objects.exists()
        assert not Ticket.objects.filter(subject="outage").exclude(priority=None).exists()


def _lock_predictions() -> None:
    """Keep others from inserting predictions until the end of the transaction."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # Whoever looks for a deadlock first is given up: not this one.
            cursor.execute("SET LOCAL deadlock_timeout = '60s'")
            cursor.execute("LOCK TABLE ticket_priority_prediction IN EXCLUSIVE MODE")
    else:
        list(ContentType.objects.select_for_update().filter(model="ticket"))


@pytest.mark.sqlite
class TestLocked:
    def test_before_it_the_ticket_is_refused_as_the_host_would_be(
        self, active_model: ModelVersion
    ) -> None:
        with short_timeout(), write_lock(), pytest.raises(OperationalError, match="locked"):
            Ticket.objects.create(**OUTAGE)
        assert not Ticket.objects.exists()

    @pytest.mark.parametrize(
        ("mode", "words"),
        [
            ("sync", ("INSERT", "ticket_priority_prediction")),
            # Prediction and message are one transaction, which begins with the lock.
            ("async", ("BEGIN IMMEDIATE",)),
        ],
    )
    def test_for_a_moment_at_the_prediction_it_costs_nothing(
        self,
        active_model: ModelVersion,
        configure: Callable[..., None],
        mode: str,
        words: tuple[str, ...],
    ) -> None:
        configure(MODE=mode)
        with write_lock_at(*words):
            ticket = Ticket.objects.create(**OUTAGE)
        prediction = only_prediction(ticket)
        assert prediction.state == (State.APPLIED if mode == "sync" else State.PENDING)
        assert Ticket.objects.get().priority == (Priority.HIGH if mode == "sync" else None)

    @pytest.mark.parametrize("mode", ["sync", "async"])
    def test_for_longer_the_ticket_is_saved_all_the_same(
        self, active_model: ModelVersion, configure: Callable[..., None], mode: str
    ) -> None:
        configure(MODE=mode)
        words = ("INSERT", "prediction") if mode == "sync" else ("BEGIN IMMEDIATE",)
        with write_lock_at(*words, tries=99):
            ticket = Ticket.objects.create(**OUTAGE)
        assert Ticket.objects.get() == ticket
        assert not Prediction.objects.exists()

    def test_at_the_claim_it_costs_nothing(
        self, active_model: ModelVersion, configure: Callable[..., None]
    ) -> None:
        configure(MODE="async")
        ticket = Ticket.objects.create(**OUTAGE)
        with write_lock_at("BEGIN IMMEDIATE"):
            assert outbox.drain() == 1
        assert only_prediction(ticket).state == State.APPLIED

    def test_at_a_decision_it_costs_nothing(self, active_model: ModelVersion) -> None:
        ticket = Ticket.objects.create(**OUTAGE)
        with write_lock_at("BEGIN IMMEDIATE"):
            ticket_priority.override(ticket, Priority.LOW)
        assert Override.objects.get().to_priority == Priority.LOW
        assert Ticket.objects.get().priority == Priority.LOW

    @pytest.mark.urls("tests.uuid_host.urls")
    def test_at_a_change_on_the_hosts_page_it_costs_nothing(
        self, attach: Callable[..., None], admin_client: Client, settings: Any
    ) -> None:
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]
        attach(record_changes=True)
        with ticket_priority.muted():
            case = Case.objects.create(body="outage", urgency=4)
        with write_lock_at("BEGIN IMMEDIATE"):
            admin_client.post(f"/cases/{case.pk}/", {"urgency": "2"})
        assert Override.objects.get().to_priority == Priority.HIGH


class TestByHand:
    """A host whose connection has AUTOCOMMIT off, of whose commits nobody hears."""

    @pytest.fixture(autouse=True)
    def manual(self) -> Iterator[None]:
        transaction.set_autocommit(False)
        yield
        transaction.rollback()
        transaction.set_autocommit(True)

    @pytest.mark.parametrize("mode", ["sync", "async"])
    def test_a_ticket_is_saved_and_answered(
        self,
        active_model: ModelVersion,
        configure: Callable[..., None],
        mode: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # Without the queue's table beside it, a worker is told after the commit.
        monkeypatch.setattr(DjangoQQueue, "shares_database", lambda self, using: False)
        configure(MODE=mode)
        ticket = Ticket.objects.create(**OUTAGE)
        ticket_priority.override(Ticket.objects.create(**TYPO), Priority.HIGH)
        transaction.commit()
        outbox.drain()
        transaction.commit()
        assert only_prediction(ticket).state == State.APPLIED
        assert list(Ticket.objects.values_list("priority", flat=True)) == [Priority.HIGH] * 2

    def test_a_ticket_that_is_lost_is_not_passed_off_as_saved(
        self, active_model: ModelVersion
    ) -> None:
        insert = ("INSERT", "ticket_priority_prediction")
        with before_statement(*insert, fault=lose_connection), pytest.raises(LOST):
            Ticket.objects.create(**OUTAGE)
        connection.close()
        assert not Ticket.objects.exists()

    def test_an_error_of_ours_costs_no_ticket(self, active_model: ModelVersion) -> None:
        def misspell(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            ours = "INSERT" in sql and "ticket_priority_prediction" in sql
            return execute(
                "SELECT nothing" if ours else sql, None if ours else params, many, context
            )

        with connection.execute_wrapper(misspell):
            Ticket.objects.create(**OUTAGE)
        transaction.commit()
        assert Ticket.objects.get().priority is None
        assert not Prediction.objects.exists()


@pytest.mark.urls(__name__)
class TestAtomicRequests:
    @pytest.fixture(autouse=True)
    def atomic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    @pytest.mark.parametrize("mode", ["sync", "async"])
    def test_a_request_that_fails_leaves_nothing_and_tells_nobody(
        self, active_model: ModelVersion, configure: Callable[..., None], mode: str
    ) -> None:

        configure(MODE=mode)
        OrmQ.objects.all().delete()
        heard: list[Any] = []

        def hear(**kwargs: Any) -> None:
            heard.append(kwargs)

        priority_predicted.connect(hear)
        try:
            client = Client(raise_request_exception=False)
            assert client.post("/", {**OUTAGE, "fail": "1"}).status_code == 500
            assert not Ticket.objects.exists()
            assert not Prediction.objects.exists()
            assert not OrmQ.objects.exists()
            assert not heard
            assert client.post("/", OUTAGE).status_code == 200
            assert len(heard) == (mode == "sync")
        finally:
            priority_predicted.disconnect(hear)
        assert only_prediction(Ticket.objects.get()).state in (State.APPLIED, State.PENDING)

    def test_a_model_that_hangs_keeps_the_transaction_for_its_deadline_only(
        self, faulty_model: type[FaultyClassifier]
    ) -> None:
        over = threading.Event()
        faulty_model.fault = lambda texts: over.wait(30) and None
        try:
            assert Client().post("/", OUTAGE).status_code == 200
        finally:
            over.set()
        assert only_prediction(Ticket.objects.get()).reason == Reason.DEADLINE


def open_ticket(request: HttpRequest) -> HttpResponse:
    Ticket.objects.create(subject=request.POST["subject"], description=request.POST["description"])
    if "fail" in request.POST:
        raise RuntimeError("the host failed after it had saved")
    return HttpResponse()


urlpatterns = [path("", csrf_exempt(open_ticket))]
