from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from helpdesk.models import Ticket
from tests.conftest import publish_toy
from tests.predictions.test_on_save import OUTAGE, TYPO, only_prediction
from tests.support.classifiers import FaultyClassifier
from ticket_priority import classifiers
from ticket_priority.classifiers import Breaker, BreakerState
from ticket_priority.exceptions import BreakerOpenError
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.priorities import Priority
from ticket_priority.signals import breaker_changed

State, Reason = Prediction.State, Prediction.Reason


def error(texts: Any = None) -> None:
    raise RuntimeError("broken")


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(RuntimeError), breaker.attempt():
            error()


class TestBreaker:
    def test_failures_in_a_row_open_it(self, caplog: pytest.LogCaptureFixture) -> None:
        breaker = Breaker("v1")
        fail(breaker, 4)
        with breaker.attempt():
            pass
        fail(breaker, 4)
        assert breaker.state() == BreakerState.CLOSED
        fail(breaker)
        assert breaker.state() == BreakerState.OPEN
        for _ in range(3):
            with pytest.raises(BreakerOpenError), breaker.attempt():
                pytest.fail("the model was asked")
        said = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(said) == 1
        assert "v1" in said[0].getMessage()

    def test_whoever_listens_hears_of_each_change_and_may_ask_back(self, configure: Any) -> None:
        configure(SERVING={"BREAKER_FAILURES": 1, "BREAKER_SECONDS": 0.001})
        breaker, heard = Breaker("v1"), []

        def hear(**news: Any) -> None:
            assert breaker.state() in BreakerState
            heard.append((news["version"], news["state"]))

        breaker_changed.connect(hear)
        try:
            with breaker.attempt():
                pass
            fail(breaker)
            threading.Event().wait(0.01)
            with breaker.attempt():
                pass
        finally:
            breaker_changed.disconnect(hear)
        assert heard == [("v1", "open"), ("v1", "half_open"), ("v1", "closed")]

    def test_an_error_of_the_database_is_not_the_models(self) -> None:
        breaker = Breaker()
        for _ in range(9):
            with pytest.raises(OperationalError), breaker.attempt():
                raise OperationalError
        assert breaker.state() == BreakerState.CLOSED

    def test_the_end_of_the_process_is_not_the_models(self, configure: Any) -> None:
        configure(SERVING={"BREAKER_SECONDS": 0.001})
        breaker = Breaker()
        breaker.trip()
        for _ in range(9):
            threading.Event().wait(0.01)
            with pytest.raises(SystemExit), breaker.attempt():
                raise SystemExit
        with breaker.attempt():
            pass
        assert breaker.state() == BreakerState.CLOSED

    @pytest.mark.parametrize("mended", [True, False])
    def test_one_of_twenty_threads_tries_a_model_that_has_rested(
        self, configure: Any, mended: bool
    ) -> None:
        breaker = Breaker()
        breaker.trip()
        configure(SERVING={"BREAKER_SECONDS": 0.001})
        threading.Event().wait(0.01)
        assert breaker.state() == BreakerState.HALF_OPEN
        configure(SERVING={"BREAKER_SECONDS": 3600})
        breaker._changed_at -= 3600
        together, tried, refused = threading.Barrier(20), [], []
        all_refused = threading.Event()

        def ask() -> None:
            together.wait()
            try:
                with breaker.attempt():
                    tried.append(1)
                    all_refused.wait(30)
                    if not mended:
                        error()
            except BreakerOpenError:
                refused.append(1)
                if len(refused) == 19:
                    all_refused.set()
            except RuntimeError:
                pass

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(tried), len(refused)) == (1, 19)
        assert breaker.state() == (BreakerState.CLOSED if mended else BreakerState.OPEN)

    def test_a_failure_from_before_it_opened_says_nothing_of_the_try(self, configure: Any) -> None:
        breaker = Breaker()
        old = breaker.attempt()
        old.__enter__()
        breaker.trip()
        configure(SERVING={"BREAKER_SECONDS": 0.001})
        threading.Event().wait(0.01)
        with breaker.attempt():
            old.__exit__(None, None, None)
            assert breaker._state == BreakerState.HALF_OPEN
        assert breaker.state() == BreakerState.CLOSED


@pytest.mark.django_db
class TestSaving:
    @pytest.fixture(autouse=True)
    def patient(self, faulty_model: type[FaultyClassifier], configure: Any) -> None:
        configure(SERVING={"DEADLINE_MS": 60_000, "BREAKER_FAILURES": 2, "BREAKER_SECONDS": 3600})

    def test_a_model_that_fails_again_and_again_is_left_alone_and_tried_again(
        self, faulty_model: type[FaultyClassifier], configure: Callable[..., None]
    ) -> None:
        faulty_model.fault = error
        reasons = [only_prediction(Ticket.objects.create(**OUTAGE)).reason for _ in range(4)]
        assert reasons == [Reason.MODEL_ERROR] * 2 + [Reason.BREAKER_OPEN] * 2
        assert faulty_model.calls == 2
        assert classifiers.breaker_state() == BreakerState.OPEN

        faulty_model.fault = None
        configure(SERVING={"BREAKER_SECONDS": 0.001})
        threading.Event().wait(0.01)
        assert Ticket.objects.create(**OUTAGE).priority == Priority.HIGH
        assert classifiers.breaker_state() == BreakerState.CLOSED
        assert outbox.drain() == 4
        assert set(Ticket.objects.values_list("priority", flat=True)) == {Priority.HIGH}

    def test_missed_deadlines_open_it(
        self, faulty_model: type[FaultyClassifier], configure: Callable[..., None]
    ) -> None:
        configure(SERVING={"DEADLINE_MS": 20})
        over = threading.Event()
        faulty_model.fault = lambda texts: over.wait(30) and None
        reasons = [only_prediction(Ticket.objects.create(**OUTAGE)).reason for _ in range(3)]
        over.set()
        assert reasons == [Reason.DEADLINE] * 2 + [Reason.BREAKER_OPEN]

    def test_another_version_begins_closed(
        self, faulty_model: type[FaultyClassifier], toy_run: Any, artifact_root: Any
    ) -> None:
        classifiers.get_classifier().breaker.trip()
        publish_toy(toy_run, artifact_root, "toy-2").activate()
        classifiers.get_classifier()
        assert Ticket.objects.create(**OUTAGE).priority == Priority.HIGH


@pytest.mark.django_db
class TestDraining:
    @pytest.fixture(autouse=True)
    def mode(self, faulty_model: type[FaultyClassifier], configure: Any) -> None:
        configure(
            MODE="async",
            SERVING={"BATCH_SIZE": 2, "BREAKER_SECONDS": 0.001},
            QUEUE={"MAX_ATTEMPTS": 2},
        )

    @pytest.mark.parametrize(
        "fault",
        [error, lambda texts: [], lambda texts: [None for _ in texts]],
        ids=["it raises", "no answers", "answers that are none"],
    )
    def test_a_model_that_fails_at_everything_costs_no_ticket_an_attempt(
        self, faulty_model: type[FaultyClassifier], fault: Any
    ) -> None:
        for _ in range(5):
            Ticket.objects.create(**OUTAGE)
        faulty_model.fault = fault
        for _ in range(4):
            assert outbox.drain() == 0
            threading.Event().wait(0.01)
        rows = Prediction.objects.values_list("state", "attempts", "claim")
        assert set(rows) == {(State.PENDING, 0, "")}
        faulty_model.fault = None
        assert outbox.drain() == 5
        assert set(Ticket.objects.values_list("priority", flat=True)) == {Priority.HIGH}

    def test_while_the_breaker_is_open_a_drain_asks_nothing(
        self, faulty_model: type[FaultyClassifier], configure: Any
    ) -> None:
        Ticket.objects.create(**OUTAGE)
        configure(SERVING={"BREAKER_SECONDS": 3600})
        faulty_model.fault = error
        outbox.drain()
        asked = faulty_model.calls
        assert outbox.drain() == 0
        assert faulty_model.calls == asked

    def test_a_poisonous_ticket_alone_is_still_given_up(
        self, faulty_model: type[FaultyClassifier]
    ) -> None:
        def fault(texts: list[str]) -> None:
            if any("typo" in text for text in texts):
                error()

        faulty_model.fault = fault
        bad = Ticket.objects.create(**TYPO)
        for _ in range(3):
            outbox.drain()
            Prediction.objects.update(claimed_at=timezone.now() - timedelta(hours=1))
        given_up = only_prediction(bad)
        assert (given_up.state, given_up.attempts) == (State.FAILED, 2)


@pytest.mark.django_db
def test_nothing_loaded_is_a_closed_breaker(active_model: ModelVersion) -> None:
    assert classifiers.breaker_state() == BreakerState.CLOSED
