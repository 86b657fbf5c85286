"""People and workers at the same ticket at the same time.

`TICKET_PRIORITY_RACES=1000 pytest tests/test_races.py` runs more of them than every run does.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from django.db import connection

import ticket_priority
from helpdesk.models import Ticket
from tests.support.classifiers import KnownClassifier
from ticket_priority import classifiers
from ticket_priority.ml.types import Classification
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_predicted

pytestmark = pytest.mark.django_db(transaction=True)

State = Prediction.State
RACES = int(os.environ.get("TICKET_PRIORITY_RACES", "100"))
LONGEST_PAUSE = 0.004
PEOPLE = 10


def overrule(pk: int, priority: Priority) -> None:
    ticket_priority.override(Ticket.objects.get(pk=pk), priority)


def save_as_a_host_does(pk: int, priority: Priority) -> None:
    ticket = Ticket.objects.get(pk=pk)
    ticket.priority = priority
    ticket.save(update_fields=["priority"])


def update_past_all_signals(pk: int, priority: Priority) -> None:
    Ticket.objects.filter(pk=pk).update(priority=priority)


WAYS = (overrule, save_as_a_host_does, update_past_all_signals)


class WatchedClassifier(KnownClassifier):
    """Tells people of the texts that it is busy with, and takes a moment."""

    tell: ClassVar[Callable[[str], Any] | None] = None

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        tell = type(self).tell
        for text in texts:
            if tell is not None:
                tell(text)
        time.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311
        return super().classify(texts)


@pytest.fixture
def watched(
    active_model: ModelVersion, configure: Callable[..., None]
) -> Iterator[type[WatchedClassifier]]:
    configure(
        MODE="async",
        SERVING={"BATCH_SIZE": 5, "CLASSIFIERS": {"transformer": f"{__name__}.WatchedClassifier"}},
    )
    yield WatchedClassifier
    WatchedClassifier.tell = None


@pytest.fixture
def tickets(watched: type[WatchedClassifier]) -> dict[int, int]:
    """Pending tickets: the number in the text, and the key."""
    numbers = range(RACES)
    return {
        number: Ticket.objects.create(subject=f"No. {number}", description="Help!").pk
        for number in numbers
    }


@pytest.fixture
def applied() -> Any:
    """How often a prediction was announced as applied, by ticket."""
    counts: Counter[int] = Counter()

    def count(instance: Any, prediction: Prediction, **kwargs: Any) -> None:
        counts[instance.pk] += prediction.state == State.APPLIED

    priority_predicted.connect(count)
    yield counts
    priority_predicted.disconnect(count)


def beside(*works: Callable[[], Any]) -> None:
    """Run functions in threads of their own until all have ended; raises what one raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class People:
    """Decide about every ticket around the time a worker does, each in one of three ways."""

    def __init__(self, tickets: dict[int, int]) -> None:
        self.tickets = tickets
        self.decided: dict[int, Priority] = {}
        self.decisions: list[Future[None]] = []
        self.draw = random.Random(7)  # noqa: S311
        self.pool = ThreadPoolExecutor(PEOPLE)
        # To connect may take longer than the worker does.
        self._all(lambda: connection.ensure_connection())

    def hear_of(self, text: str) -> None:
        """Have somebody decide, after a moment of their own."""
        pk = self.tickets[int(text.split()[1])]
        if pk in self.decided:
            return
        priority = self.decided[pk] = self.draw.choice(list(Priority))
        pause, way = self.draw.uniform(0, 3 * LONGEST_PAUSE), self.draw.choice(WAYS)
        self.decisions.append(self.pool.submit(self._decide, pause, way, pk, priority))

    def join(self) -> None:
        """Wait until all have decided; raises what one of them met."""
        for decision in self.decisions:
            decision.result()

    def leave(self) -> None:
        self._all(lambda: connection.close())
        self.pool.shutdown()

    def _decide(self, pause: float, way: Callable[..., None], pk: int, priority: Priority) -> None:
        time.sleep(pause)
        way(pk, priority)

    def _all(self, work: Callable[[], None]) -> None:
        """Have each do something once: nobody goes on before all are there."""
        together = threading.Barrier(PEOPLE)

        def once() -> None:
            together.wait()
            work()

        for done in [self.pool.submit(once) for _ in range(PEOPLE)]:
            done.result()


@pytest.fixture
def people(tickets: dict[int, int]) -> Iterator[People]:
    people = People(tickets)
    yield people
    people.leave()


def test_a_person_wins_whenever_they_decide(
    watched: type[WatchedClassifier], people: People, applied: Counter[int]
) -> None:
    watched.tell = people.hear_of
    outbox.drain()
    people.join()
    assert len(people.decided) == RACES
    assert dict(Ticket.objects.values_list("pk", "priority")) == people.decided
    states = Counter(Prediction.objects.values_list("state", flat=True))
    assert sum(states.values()) == RACES
    assert set(states) <= {State.APPLIED, State.SUPERSEDED}
    # Otherwise people were always first, or always last, and nothing raced.
    assert min(states[State.APPLIED], states[State.SUPERSEDED]) > RACES / 50
    assert max(applied.values()) == 1


def test_a_person_wins_over_who_classifies_again(
    watched: type[WatchedClassifier], people: People
) -> None:
    Prediction.objects.all().delete()
    watched.tell = people.hear_of
    for ticket in Ticket.objects.order_by("pk"):
        classify_instances([ticket])
    people.join()
    assert dict(Ticket.objects.values_list("pk", "priority")) == people.decided


def test_workers_and_a_change_of_models_decide_each_ticket_once(
    watched: type[WatchedClassifier],
    tickets: dict[int, int],
    applied: Counter[int],
    active_model: ModelVersion,
    toy_run: Any,
    artifact_root: Any,
) -> None:
    from tests.conftest import publish_toy

    versions = [active_model, publish_toy(toy_run, artifact_root, "toy-2")]
    finished = threading.Event()
    decided: list[int] = []

    def work_off() -> None:
        decided.append(outbox.drain())

    def work_off_all() -> None:
        try:
            beside(*[work_off] * 3)
        finally:
            finished.set()

    def activate_in_turn() -> None:
        turn = 0
        while not finished.wait(0.02):
            turn += 1
            ModelVersion.objects.get(pk=versions[turn % 2].pk).activate()
        assert turn > 1

    beside(work_off_all, activate_in_turn)
    assert sum(decided) == RACES
    assert ModelVersion.objects.filter(is_active=True).count() == 1
    assert set(Prediction.objects.values_list("state", "attempts")) == {(State.APPLIED, 1)}
    assert set(Prediction.objects.values_list("model_version", flat=True)) <= {
        version.pk for version in versions
    }
    said = {
        int(key): priority
        for key, priority in Prediction.objects.values_list("object_id", "priority")
    }
    assert dict(Ticket.objects.values_list("pk", "priority")) == said
    assert set(applied.values()) == {1}
    assert not Override.objects.exists()
    classifiers.reset()
