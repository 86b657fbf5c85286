"""A model that never answers: every request that asks it comes back, and then no longer asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, TYPO, only_prediction
from tests.support.classifiers import FaultyClassifier, SlowToLoadClassifier
from ticket_priority.classifiers import get_classifier, slots
from ticket_priority.exceptions import ModelUnavailableError
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import workers
from ticket_priority.predictions.on_save import classify
from ticket_priority.predictions.receivers import muted
from ticket_priority.priorities import Priority

pytestmark = pytest.mark.django_db(transaction=True)

INLINE = "ticket_priority.queues.inline.InlineQueue"
SOON = 20.0
"""Seconds that eight requests may take together on a busy machine: the model hangs for a minute."""

Send = Callable[[], int]


@pytest.fixture
def hanging(faulty_model: type[FaultyClassifier]) -> Iterator[type[FaultyClassifier]]:
    over = threading.Event()

    def hang(texts: Sequence[str]) -> None:
        over.wait(60)

    faulty_model.fault = hang
    yield faulty_model
    over.set()


@pytest.fixture
def ticket(faulty_model: type[FaultyClassifier]) -> Ticket:
    with muted():
        return Ticket.objects.create(**OUTAGE)


@pytest.fixture
def boss() -> User:
    return User.objects.create_superuser("boss")


def eight_at_once(send: Send) -> list[int]:
    """Send it from eight threads, as two gunicorn processes with four threads do; the statuses."""
    found: list[int] = []

    def work() -> None:
        try:
            found.append(send())
        finally:
            connection.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(SOON - (time.monotonic() - began), 0))
    return found


@pytest.mark.parametrize("name", ["predict", "predict many", "classify"])
def test_requests_of_the_api_come_back_and_then_ask_no_more(
    hanging: type[FaultyClassifier], ticket: Ticket, boss: User, name: str
) -> None:
    body: Any = {"text": "outage"} if name == "predict" else {"texts": ["outage"] * 64}
    url = reverse("ticket_priority_api:predict")
    if name == "classify":
        body = {}
        url = reverse("ticket_priority_api:ticket-classify", args=["helpdesk.Ticket", ticket.pk])

    def send() -> int:
        client = APIClient(raise_request_exception=False)
        client.force_authenticate(boss)
        status: int = client.post(url, body, format="json").status_code
        return status

    assert eight_at_once(send) == [503] * 8
    asked = hanging.calls
    assert send() == 503
    assert hanging.calls == asked, "the circuit breaker is open"
    assert not Prediction.objects.exists()
    health = APIClient().get(reverse("ticket_priority_api:health")).json()
    assert health["breaker"] == "open"
    assert Ticket.objects.create(**TYPO).pk


def test_the_admins_button_and_action_come_back(
    hanging: type[FaultyClassifier], ticket: Ticket, boss: User
) -> None:
    client = Client()
    client.force_login(boss)
    changelist = reverse("admin:helpdesk_ticket_changelist")
    action = {"action": "classify_tickets", "_selected_action": [ticket.pk]}
    began = time.monotonic()
    told = client.post(changelist, action, follow=True)
    assert time.monotonic() - began < SOON
    assert "The model took longer than DEADLINE_MS." in told.content.decode()


def test_a_hosts_own_call_comes_back(hanging: type[FaultyClassifier]) -> None:
    with pytest.raises(ModelUnavailableError):
        classify(["outage"])


def test_a_drain_in_a_request_comes_back(
    hanging: type[FaultyClassifier], configure: Callable[..., None]
) -> None:
    configure(QUEUE=INLINE, MODE="async")
    began = time.monotonic()
    waiting = Ticket.objects.create(**OUTAGE)
    assert time.monotonic() - began < SOON
    assert only_prediction(waiting).state == Prediction.State.PENDING


def test_a_model_that_fails_is_left_alone_by_classify_too(
    faulty_model: type[FaultyClassifier], ticket: Ticket, boss: User
) -> None:
    def fail(texts: Sequence[str]) -> None:
        raise RuntimeError("no memory")

    faulty_model.fault = fail
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(boss)
    url = reverse("ticket_priority_api:ticket-classify", args=["helpdesk.Ticket", ticket.pk])
    assert [client.post(url).status_code for _ in range(6)] == [201] * 5 + [503]


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which this process knows as little as one that has just started."""

    def forget() -> None:
        monkeypatch.setattr(workers, "_next_sweep_at", 0.0)
        monkeypatch.setattr(workers, "_waits_for_load", False)

    forget()
    return forget


def test_without_a_queue_a_ticket_is_picked_up_by_another_process(
    faulty_model: type[FaultyClassifier],
    configure: Callable[..., None],
    another_process: Callable[[], None],
) -> None:
    configure(QUEUE=INLINE)

    def fail(texts: Sequence[str]) -> None:
        raise RuntimeError("no memory")

    faulty_model.fault = fail
    left = Ticket.objects.create(**OUTAGE)
    assert only_prediction(left).state == Prediction.State.PENDING
    another_process()
    faulty_model.fault = None
    Ticket.objects.create(**TYPO)
    left.refresh_from_db()
    assert left.priority == Priority.HIGH


def test_without_a_queue_a_process_looks_for_what_others_left_now_and_then(
    faulty_model: type[FaultyClassifier],
    configure: Callable[..., None],
    another_process: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(QUEUE={"BACKEND": INLINE, "SWEEP_MINUTES": 1})
    Ticket.objects.create(**TYPO)
    left = Ticket.objects.create(**OUTAGE)
    Ticket.objects.filter(pk=left.pk).update(priority=None)
    rows = Prediction.objects.filter(object_id=str(left.pk))
    rows.update(state="pending", reason="model_error", priority=None, value_before=None)
    Ticket.objects.create(**TYPO)
    assert rows.get().state == Prediction.State.PENDING, "a save is no sweep every time"
    # A minute later.
    monkeypatch.setattr(workers, "_next_sweep_at", workers._next_sweep_at - 60)
    Ticket.objects.create(**TYPO)
    assert rows.get().state == Prediction.State.APPLIED


def test_the_first_ticket_of_a_process_waits_for_no_other_ticket(
    faulty_model: type[FaultyClassifier],
    boss: User,
    configure: Callable[..., None],
    another_process: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its request leaves it pending while the model loads; after the response it is answered."""
    from ticket_priority import classifiers

    path = "tests.support.classifiers.SlowToLoadClassifier"
    configure(QUEUE=INLINE, SERVING={"CLASSIFIERS": {"transformer": path}, "DEADLINE_MS": 50})
    SlowToLoadClassifier.may_load = threading.Event()
    classifiers.reset()
    client = Client()
    client.force_login(boss)
    loads = threading.Timer(1, SlowToLoadClassifier.may_load.set)
    loads.start()
    ticket = Ticket.objects.create(**OUTAGE)
    assert ticket.priority is None
    client.get(reverse("admin:index"))
    loads.join()
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH


def test_what_is_loading_for_ever_holds_up_no_request_for_long(
    active_model: ModelVersion,
    boss: User,
    configure: Callable[..., None],
    fresh_classifier: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = "tests.support.classifiers.SlowToLoadClassifier"
    configure(SERVING={"CLASSIFIERS": {"transformer": path}, "DEADLINE_MS": 50})
    SlowToLoadClassifier.may_load = threading.Event()
    monkeypatch.setattr("ticket_priority.classifiers.active.LOAD_WAIT_SECONDS", 0.5)
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(boss)
    url = reverse("ticket_priority_api:predict")
    try:
        began = time.monotonic()
        assert client.post(url, {"text": "outage"}, format="json").status_code == 503
        assert time.monotonic() - began < SOON
    finally:
        SlowToLoadClassifier.may_load.set()
    load = slots.slot_for(slots.Role.ACTIVE).follow(active_model)
    assert load is None or load.ended.wait(30)
    assert get_classifier().model_version == active_model
