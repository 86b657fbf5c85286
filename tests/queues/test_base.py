"""A queue that the plugin does not know, chosen by a setting alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from typing import Any, ClassVar

import pytest
from django.apps import apps
from django.core.checks import CheckMessage, Info, run_checks
from django.core.management import call_command
from django.db import transaction
from django.utils.module_loading import import_string

from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, only_prediction
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions.receivers import create_schedules
from ticket_priority.priorities import Priority
from ticket_priority.queues.base import Queue, Workers

PATH = "tests.queues.test_base.ListQueue"
DRAIN = "ticket_priority.tasks.drain_predictions"


class ListQueue(Queue):
    """Keeps tasks in a list, which a test works off as a worker would."""

    app = "helpdesk"
    worker_command = "manage.py work"
    tasks: ClassVar[list[tuple[str, ...]]] = []
    schedules: ClassVar[dict[str, tuple[str, int | None]]] = {}
    error: ClassVar[Exception | None] = None
    is_database: ClassVar[bool] = False

    def enqueue(self, task: str, *args: str) -> None:
        if self.error is not None:
            raise self.error
        self.tasks.append((task, *args))

    def shares_database(self, using: str) -> bool:
        return self.is_database and using == "default"

    def schedule(self, name: str, task: str, *, minutes: int | None) -> None:
        self.schedules[name] = (task, minutes)

    def unschedule(self, name: str) -> None:
        self.schedules.pop(name, None)

    def next_run_at(self, name: str) -> datetime | None:
        return datetime(2100, 1, 1, tzinfo=UTC) if name in self.schedules else None

    def workers(self) -> Workers:
        return Workers.ABSENT

    def check(self) -> list[CheckMessage]:
        return [Info("The list is short.", id="queues.I001")]

    def check_deployment(self) -> list[CheckMessage]:
        return [Info("The list is lost at a restart.", id="queues.I002")]


def work() -> list[Any]:
    """Run what was enqueued."""
    results = [import_string(task)(*args) for task, *args in ListQueue.tasks]
    ListQueue.tasks.clear()
    return results


@pytest.fixture(autouse=True)
def chosen(db: None, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListQueue, "tasks", [])
    monkeypatch.setattr(ListQueue, "schedules", {})
    configure(QUEUE={"BACKEND": PATH}, MODE="async")


def ids(*, deploy: bool = False) -> set[str]:
    return {
        str(message.id)
        for message in run_checks(tags=["ticket_priority"], include_deployment_checks=deploy)
    }


@pytest.mark.django_db(transaction=True)
def test_it_is_given_the_drain_after_the_commit(active_model: ModelVersion) -> None:
    ListQueue.tasks.clear()
    with transaction.atomic():
        ticket = Ticket.objects.create(**OUTAGE)
        assert ListQueue.tasks == []
    assert ListQueue.tasks == [(DRAIN,)]
    assert work() == [1]
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH


def test_it_is_given_the_drain_in_the_transaction_that_it_shares(
    active_model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ListQueue, "is_database", True)
    ListQueue.tasks.clear()
    Ticket.objects.create(**OUTAGE)
    assert ListQueue.tasks == [(DRAIN,)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_database", [True, False])
def test_one_that_fails_costs_neither_ticket_nor_prediction(
    active_model: ModelVersion, monkeypatch: pytest.MonkeyPatch, is_database: bool
) -> None:
    monkeypatch.setattr(ListQueue, "is_database", is_database)
    monkeypatch.setattr(ListQueue, "error", OSError("no broker"))
    ticket = Ticket.objects.create(**OUTAGE)
    assert only_prediction(ticket).state == Prediction.State.PENDING


def test_migrating_its_app_or_ours_makes_its_schedules(configure: Callable[..., None]) -> None:
    configure(QUEUE={"SWEEP_MINUTES": 3}, TRAINING={"RETRAIN": {}})
    for app, is_made in (("ticket_priority", True), ("helpdesk", True), ("admin", False)):
        ListQueue.schedules.clear()
        create_schedules(sender=apps.get_app_config(app), using="default")
        assert bool(ListQueue.schedules) is is_made, app
    create_schedules(sender=apps.get_app_config("ticket_priority"), using="default")
    assert ListQueue.schedules == {
        "ticket_priority.sweep": ("ticket_priority.tasks.sweep", 3),
        "ticket_priority.retrain": ("ticket_priority.tasks.retrain", None),
    }
    configure(TRAINING={"RETRAIN": None})
    create_schedules(sender=apps.get_app_config("ticket_priority"), using="default")
    assert set(ListQueue.schedules) == {"ticket_priority.sweep"}


def test_its_checks_are_made_and_no_other_queues() -> None:
    assert ids() == {"queues.I001"}
    assert {"queues.I001", "queues.I002"} <= ids(deploy=True)


def test_the_status_asks_it(active_model: ModelVersion) -> None:
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("priority_status", stdout=out)
    told = out.getvalue()
    assert "No worker runs: manage.py work." in told
    assert "The sweep is not scheduled" in told
    assert "queue     workers absent, no sweep scheduled" in told
