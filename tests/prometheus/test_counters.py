from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY

import ticket_priority
from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE
from tests.support.classifiers import FaultyClassifier
from ticket_priority import signals
from ticket_priority.classifiers import get_classifier
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import kill_switch, outbox
from ticket_priority.priorities import Priority
from ticket_priority.prometheus import counters

pytestmark = pytest.mark.usefixtures("counting")

PREDICTIONS = "ticket_priority_predictions_total"
Grown = Callable[..., float]
Faulty = type[FaultyClassifier]


@pytest.fixture
def save(django_capture_on_commit_callbacks: Any) -> Callable[..., Ticket]:
    """Return a function that saves a new ticket, and lets the commit have its effects."""

    def save(**values: Any) -> Ticket:
        with django_capture_on_commit_callbacks(execute=True):
            return Ticket.objects.create(**{**OUTAGE, **values})

    return save


def fail(texts: Any) -> None:
    raise RuntimeError("no memory")


def test_an_answer_and_how_long_it_took(
    faulty: Faulty, save: Callable[..., Ticket], grown: Grown
) -> None:
    save()
    answered = {"state": "applied", "reason": "ok", "mode": "sync", "priority": "high"}
    assert grown(PREDICTIONS, **answered) == 1
    assert grown("ticket_priority_latency_seconds_count", mode="sync") == 1
    assert 0 < grown("ticket_priority_latency_seconds_sum", mode="sync") < 60


def test_a_ticket_that_is_saved_without_an_answer_and_gets_it_later(
    faulty: Faulty,
    save: Callable[..., Ticket],
    grown: Grown,
    configure: Callable[..., None],
    django_capture_on_commit_callbacks: Any,
) -> None:
    configure(MODE="async")
    save()
    waits = {"state": "pending", "reason": "queued", "mode": "async", "priority": "none"}
    assert grown(PREDICTIONS, **waits) == 1
    with django_capture_on_commit_callbacks(execute=True):
        assert outbox.drain() == 1
    answered = {"state": "applied", "reason": "ok", "mode": "async", "priority": "high"}
    assert grown(PREDICTIONS, **answered) == 1
    assert grown(PREDICTIONS, **waits) == 0


def test_why_there_is_no_answer(
    faulty: Faulty, save: Callable[..., Ticket], grown: Grown, configure: Callable[..., None]
) -> None:
    none = {"mode": "sync", "priority": "none"}
    save(subject="", description="")
    assert grown(PREDICTIONS, state="abstained", reason="empty_text", **none) == 1
    faulty.fault = fail
    save()
    assert grown(PREDICTIONS, state="pending", reason="model_error", **none) == 1
    kill_switch.turn(on=False)
    save()
    assert grown(PREDICTIONS, state="pending", reason="disabled", **none) == 1


def test_a_rollback_counts_nothing(faulty: Faulty, grown: Grown) -> None:
    Ticket.objects.create(**OUTAGE)
    assert grown(PREDICTIONS, state="applied", reason="ok", mode="sync", priority="high") == 0


def test_what_the_audit_holds_back_is_not_counted(
    faulty: Faulty, save: Callable[..., Ticket], grown: Grown, configure: Callable[..., None]
) -> None:
    configure(DECISIONS={"AUDIT_SHARE": 0.5})
    for _ in range(30):
        save()
    counted = grown(PREDICTIONS, state="applied", reason="ok", mode="sync", priority="high")
    assert 0 < counted < 30
    told = [
        sample
        for family in counters.PREDICTIONS.collect()
        for sample in family.samples
        if sample.labels["mode"] == "audit"
    ]
    assert told == []


def test_decisions_of_people(
    faulty: Faulty,
    save: Callable[..., Ticket],
    grown: Grown,
    django_capture_on_commit_callbacks: Any,
) -> None:
    ticket = save()
    for priority in (Priority.LOW, Priority.LOW):
        with django_capture_on_commit_callbacks(execute=True):
            ticket_priority.override(ticket, priority)
    name = "ticket_priority_overrides_total"
    assert grown(name, from_priority="high", to_priority="low") == 1
    assert grown(name, from_priority="low", to_priority="low") == 1


def test_the_breaker(
    faulty: Faulty, save: Callable[..., Ticket], configure: Callable[..., None]
) -> None:
    def is_open() -> float | None:
        return REGISTRY.get_sample_value("ticket_priority_breaker_open")

    configure(SERVING={"BREAKER_FAILURES": 2, "BREAKER_SECONDS": 3600})
    faulty.fault = fail
    save()
    assert is_open() == 0
    save()
    assert is_open() == 1
    faulty.fault = None
    configure(SERVING={"BREAKER_SECONDS": 0.001})
    save()
    assert is_open() == 0
    # Opening it sends no signal about a prediction.
    get_classifier().breaker.trip()
    assert is_open() == 1
    # Another version has a breaker of its own.
    other = ModelVersion.objects.get()
    other.pk, other.name, other.is_active = None, "other", None
    other.save()
    other.activate()
    save()
    assert is_open() == 0


def test_it_costs_a_save_no_query(faulty: Faulty, save: Callable[..., Ticket]) -> None:
    save()
    with CaptureQueriesContext(connection) as counted:
        save()
    for signal in (signals.priority_predicted, signals.priority_missing):
        signal.disconnect(dispatch_uid="ticket_priority.prometheus")
    with CaptureQueriesContext(connection) as uncounted:
        save()
    counters.connect()
    assert len(counted) == len(uncounted)


def test_what_counting_meets_is_not_the_saves(
    faulty: Faulty, save: Callable[..., Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that cannot write its file, for one."""

    class Full:
        def labels(self, *values: object) -> None:
            raise OSError("No space left on device")

    monkeypatch.setattr(counters, "PREDICTIONS", Full())
    assert save().priority == Priority.HIGH
    faulty.fault = fail
    assert save().pk is not None
