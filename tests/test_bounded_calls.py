from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from helpdesk.models import Ticket
from tests.conftest import publish_toy
from tests.predictions.test_on_save import OUTAGE, TYPO, only_prediction
from tests.support.classifiers import FaultyClassifier, SlowToLoadClassifier, sure_answer
from ticket_priority import classifiers
from ticket_priority.bounded_calls import THREADS, Pool
from ticket_priority.classifiers import loaded_model_version
from ticket_priority.classifiers.slots import Role, slot_for
from ticket_priority.exceptions import ModelOverloadedError, ModelTimeoutError
from ticket_priority.ml.types import Classification
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.priorities import Priority

State, Reason = Prediction.State, Prediction.Reason
LONG = 30.0
SOON = 10.0
"""Far above the deadline of 100 ms, as machines are noisy, and far below what hangs here."""


@pytest.fixture
def hang() -> Iterator[Callable[[Any], None]]:
    """Return a fault that hangs until the test has ended."""
    over = threading.Event()
    yield lambda texts=None: over.wait(LONG) and None
    over.set()


def save(**fields: str) -> tuple[Ticket, float]:
    started = time.monotonic()
    ticket = Ticket.objects.create(**fields)
    return ticket, time.monotonic() - started


class TestPool:
    def test_a_call_gives_back_what_comes_of_it(self) -> None:
        assert Pool().call(lambda: 7, LONG) == 7

    def test_an_error_is_the_callers(self) -> None:
        def fail() -> None:
            raise MemoryError("none left")

        pool = Pool(threads=1)
        with pytest.raises(MemoryError, match="none left"):
            pool.call(fail, LONG)
        assert pool.call(lambda: 7, LONG) == 7

    def test_threads_that_hang_do_not_pile_up(self, hang: Callable[..., None]) -> None:
        pool, before = Pool(), threading.active_count()
        for _ in range(THREADS):
            with pytest.raises(ModelTimeoutError):
                pool.call(hang, 0.05)
        started = time.monotonic()
        for _ in range(50):
            with pytest.raises(ModelOverloadedError):
                pool.call(hang, LONG)
        assert time.monotonic() - started < SOON
        assert threading.active_count() - before <= THREADS

    def test_it_recovers_when_they_come_back(self) -> None:
        pool, back = Pool(threads=1), threading.Event()
        with pytest.raises(ModelTimeoutError):
            pool.call(lambda: back.wait(LONG), 0.01)
        with pytest.raises(ModelOverloadedError):
            pool.call(lambda: 7, LONG)
        back.set()
        until = time.monotonic() + SOON
        while time.monotonic() < until:
            try:
                assert pool.call(lambda: 7, LONG) == 7
                return
            except ModelOverloadedError:
                time.sleep(0.01)
        pytest.fail("the pool stayed overloaded")

    def test_busy_threads_are_waited_for(self) -> None:
        pool, found = Pool(threads=2), []

        def work() -> int:
            time.sleep(0.01)
            return 1

        callers = [
            threading.Thread(target=lambda: found.append(pool.call(work, LONG))) for _ in range(20)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert sum(found) == 20

    def test_what_nobody_waits_for_any_more_is_not_begun(self) -> None:
        pool, back, begun = Pool(threads=1), threading.Event(), threading.Event()
        busy = pool.submit(lambda: back.wait(LONG), LONG)
        with pytest.raises(ModelTimeoutError):
            pool.call(begun.set, 0.01)
        back.set()
        busy.wait()
        assert pool.call(lambda: 7, LONG) == 7
        assert not begun.is_set()

    def test_idle_threads_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ticket_priority.bounded_calls.IDLE_SECONDS", 0.01)
        pool, before = Pool(), threading.active_count()
        assert pool.call(lambda: 7, LONG) == 7
        until = time.monotonic() + SOON
        while threading.active_count() > before and time.monotonic() < until:
            time.sleep(0.01)
        assert threading.active_count() <= before
        assert pool.call(lambda: 7, LONG) == 7


@pytest.mark.sqlite
def test_a_process_ends_though_a_call_hangs() -> None:
    script = """
import time
from ticket_priority import bounded_calls
bounded_calls.EXIT_SECONDS = 0.2
try:
    bounded_calls.Pool().call(lambda: time.sleep(600), 0.01)
except bounded_calls.ModelTimeoutError:
    print("given up")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.strip() == "given up"


def error(texts: Any) -> None:
    raise RuntimeError("broken")


def out_of_memory(texts: Any) -> None:
    raise MemoryError


FAULTS: dict[str, Callable[..., Any]] = {
    "too few": lambda texts: [],
    "too many": lambda texts: [sure_answer()] * (len(texts) + 1),
    "no number": lambda texts: [Classification((float("nan"),) * 3) for _ in texts],
    "no sum": lambda texts: [Classification((0.9, 0.9, 0.9)) for _ in texts],
    "two classes": lambda texts: [Classification((0.5, 0.5)) for _ in texts],
    "negative": lambda texts: [Classification((-1.0, 1.0, 1.0)) for _ in texts],
    "nothing": lambda texts: [None for _ in texts],
    "error": error,
    "out of memory": out_of_memory,
}


@pytest.mark.django_db
class TestSaving:
    def test_a_model_in_time_answers(
        self, faulty_model: type[FaultyClassifier], configure: Callable[..., None]
    ) -> None:
        configure(SERVING={"DEADLINE_MS": 60_000})
        ticket, _ = save(**OUTAGE)
        assert ticket.priority == Priority.HIGH
        assert only_prediction(ticket).reason == Reason.OK

    def test_without_a_deadline_the_save_waits(
        self, faulty_model: type[FaultyClassifier], configure: Callable[..., None]
    ) -> None:
        configure(SERVING={"DEADLINE_MS": None})
        faulty_model.fault = lambda texts: time.sleep(0.3)
        assert save(**OUTAGE)[0].priority == Priority.HIGH

    def test_a_model_that_is_late_is_not_waited_for(
        self, faulty_model: type[FaultyClassifier]
    ) -> None:
        late = threading.Event()

        def fault(texts: Any) -> None:
            late.wait(LONG)

        faulty_model.fault = fault
        ticket, seconds = save(**OUTAGE)
        assert seconds < SOON
        late.set()
        assert ticket.priority is None
        prediction = only_prediction(ticket)
        assert (prediction.state, prediction.reason) == (State.PENDING, Reason.DEADLINE)

        faulty_model.fault = None
        time.sleep(0.05)
        ticket.refresh_from_db()
        assert ticket.priority is None, "what came late was applied"
        assert outbox.drain() == 1
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH
        assert Prediction.objects.count() == 1

    def test_a_model_that_hangs_holds_up_no_save(
        self,
        faulty_model: type[FaultyClassifier],
        hang: Callable[..., None],
        configure: Callable[..., None],
    ) -> None:
        configure(SERVING={"BREAKER_FAILURES": 100})
        faulty_model.fault = hang
        reasons = []
        for _ in range(THREADS + 3):
            ticket, seconds = save(**OUTAGE)
            assert seconds < SOON
            reasons.append(only_prediction(ticket).reason)
        assert reasons == [Reason.DEADLINE] * THREADS + [Reason.OVERLOADED] * 3
        assert faulty_model.calls == THREADS

    def test_another_version_does_not_inherit_threads_that_hang(
        self,
        faulty_model: type[FaultyClassifier],
        hang: Callable[..., None],
        toy_run: Any,
        artifact_root: Any,
        configure: Callable[..., None],
    ) -> None:
        faulty_model.fault = hang
        for _ in range(THREADS):
            save(**OUTAGE)
        publish_toy(toy_run, artifact_root, "toy-2").activate()
        faulty_model.fault = None
        configure(SERVING={"DEADLINE_MS": 60_000})
        classifiers.get_classifier()
        assert save(**OUTAGE)[0].priority == Priority.HIGH

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    def test_a_ticket_saves_whatever_the_model_returns_or_raises(
        self,
        faulty_model: type[FaultyClassifier],
        configure: Callable[..., None],
        fault: Callable[..., Any],
    ) -> None:
        configure(SERVING={"DEADLINE_MS": 60_000})
        faulty_model.fault = fault
        ticket, _ = save(**OUTAGE)
        assert ticket.priority is None
        prediction = only_prediction(ticket)
        assert (prediction.state, prediction.reason) == (State.PENDING, Reason.MODEL_ERROR)
        assert prediction.prob_high is None

        faulty_model.fault = None
        assert outbox.drain() == 1
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH


@pytest.fixture
def slow(
    active_model: ModelVersion, configure: Callable[..., None]
) -> Iterator[type[SlowToLoadClassifier]]:
    configure(
        SERVING={
            "CLASSIFIERS": {"transformer": "tests.support.classifiers.SlowToLoadClassifier"},
            "DEADLINE_MS": 100,
        }
    )
    SlowToLoadClassifier.may_load = threading.Event()
    yield SlowToLoadClassifier
    SlowToLoadClassifier.may_load.set()


@pytest.mark.django_db(transaction=True)
class TestLoading:
    def test_the_first_load_holds_up_no_save_and_the_later_ones_profit(
        self, slow: type[SlowToLoadClassifier], configure: Callable[..., None]
    ) -> None:
        for _ in range(3):
            ticket, seconds = save(**OUTAGE)
            assert seconds < SOON
            assert only_prediction(ticket).reason == Reason.DEADLINE
        slow.may_load.set()
        configure(SERVING={"DEADLINE_MS": 60_000})
        classifiers.get_classifier()
        assert save(**OUTAGE)[0].priority == Priority.HIGH

    def test_the_version_before_serves_while_another_loads(
        self,
        slow: type[SlowToLoadClassifier],
        toy_run: Any,
        artifact_root: Any,
        configure: Callable[..., None],
    ) -> None:
        slow.may_load.set()
        before = classifiers.get_classifier().model_version
        slow.may_load.clear()
        configure(SERVING={"DEADLINE_MS": 60_000})
        after = publish_toy(toy_run, artifact_root, "toy-2")
        after.activate()
        ticket, _ = save(**OUTAGE)
        assert only_prediction(ticket).model_version == before
        slow.may_load.set()
        until = time.monotonic() + SOON
        while classifiers.loaded_model_version() != after and time.monotonic() < until:
            time.sleep(0.01)
        ticket, _ = save(**OUTAGE)
        assert only_prediction(ticket).model_version == after

    def test_what_loading_in_the_background_met_is_written_down(
        self, active_model: ModelVersion, artifact_root: Any
    ) -> None:
        (artifact_root / active_model.directory / "model.onnx").write_bytes(b"garbage")
        ticket, _ = save(**OUTAGE)
        assert only_prediction(ticket).reason == Reason.NO_MODEL
        active_model.refresh_from_db()
        assert "differs from its checksum" in active_model.load_error

    def test_threads_of_the_pool_hold_no_connection(self, active_model: ModelVersion) -> None:
        from django.db import connections

        touched = []
        original = connections.__class__.__getitem__

        def spy(self: Any, alias: str) -> Any:
            touched.append(threading.current_thread())
            return original(self, alias)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connections.__class__, "__getitem__", spy)
            assert save(**OUTAGE)[0].priority == Priority.HIGH
        assert set(touched) == {threading.current_thread()}


@pytest.mark.django_db(transaction=True)
def test_saves_side_by_side_are_all_within_the_deadline(
    faulty_model: type[FaultyClassifier], hang: Callable[..., None]
) -> None:
    faulty_model.fault = hang
    took: list[float] = []

    def work() -> None:
        try:
            took.append(save(**OUTAGE)[1])
        finally:
            connection.close()

    savers = [threading.Thread(target=work) for _ in range(12)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    assert len(took) == Ticket.objects.filter(priority=None).count() == 12
    assert max(took) < SOON
    reasons = set(Prediction.objects.values_list("reason", flat=True))
    assert reasons <= {Reason.DEADLINE, Reason.OVERLOADED, Reason.BREAKER_OPEN}


def _load_in_child(version: ModelVersion, answers: Any) -> None:
    SlowToLoadClassifier.may_load.set()
    load = slot_for(Role.ACTIVE).follow(version, in_background=True)
    answers.put((load is not None and load.ended.wait(LONG), loaded_model_version() == version))


@pytest.mark.sqlite
@pytest.mark.django_db
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_loads_in_threads_of_its_own(
    active_model: ModelVersion, slow: type[SlowToLoadClassifier]
) -> None:
    with pytest.raises(ModelTimeoutError):
        classifiers.get_classifier(0.01)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_load_in_child, args=(active_model, answers))
    child.start()
    try:
        assert answers.get(timeout=LONG) == (True, True)
    finally:
        child.join(timeout=SOON)
        child.kill()
    assert loaded_model_version() is None


@pytest.mark.django_db(transaction=True)
def test_without_a_queue_what_was_left_behind_is_taken_along_by_the_next_ticket(
    faulty_model: type[FaultyClassifier],
    configure: Callable[..., None],
) -> None:
    configure(SERVING={"DEADLINE_MS": 60_000}, QUEUE="ticket_priority.queues.inline.InlineQueue")
    faulty_model.fault = error
    left, _ = save(**TYPO)
    assert faulty_model.calls == 1, "the model was asked again in the request"
    faulty_model.fault = None
    save(**OUTAGE)
    left.refresh_from_db()
    assert left.priority == Priority.HIGH
