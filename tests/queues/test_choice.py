"""Which queue is chosen, and what becomes of a choice that cannot be used."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import modify_settings

from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, only_prediction
from ticket_priority.exceptions import QueueError
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.priorities import Priority
from ticket_priority.queues import get_queue, has_workers
from ticket_priority.queues.base import Queue
from ticket_priority.queues.django_q import DjangoQQueue
from ticket_priority.queues.inline import InlineQueue

INLINE = "ticket_priority.queues.inline.InlineQueue"
DJANGO_Q = "ticket_priority.queues.django_q.DjangoQQueue"


class HalfQueue(Queue):
    """A queue that leaves out what it must do."""


class UnconfiguredQueue(InlineQueue):
    """A queue that misses a setting of its own."""

    def __init__(self) -> None:
        raise ImproperlyConfigured("no broker is set")


def messages() -> dict[str, str]:
    found = run_checks(tags=["ticket_priority"], include_deployment_checks=True)
    return {str(message.id).removeprefix("ticket_priority."): message.msg for message in found}


def without_django_q() -> Any:
    return modify_settings(INSTALLED_APPS={"remove": ["django_q"]})


def test_the_default_is_what_is_installed() -> None:
    assert isinstance(get_queue(), DjangoQQueue)
    assert has_workers()
    with without_django_q():
        assert isinstance(get_queue(), InlineQueue)
        assert not has_workers()
    assert isinstance(get_queue(), DjangoQQueue)


@pytest.mark.parametrize("given", [INLINE, {"BACKEND": INLINE}])
def test_the_settings_choose_and_a_string_is_short(
    configure: Callable[..., None], given: Any
) -> None:
    configure(QUEUE=given)
    assert isinstance(get_queue(), InlineQueue)
    assert messages() == {}


def test_there_is_one_in_each_process(configure: Callable[..., None]) -> None:
    queue = get_queue()
    assert get_queue() is queue
    configure(QUEUE={"SWEEP_MINUTES": 2})
    assert get_queue() is not queue


@pytest.mark.sqlite
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_its_own() -> None:
    parents = get_queue()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(get_queue() is parents))
    child.start()
    child.join(timeout=30)
    assert child.exitcode == 0
    assert answers.get() is False


UNUSABLE = [
    ("nowhere.Queue", "cannot be imported"),
    ("ticket_priority.queues.inline.NoQueue", "cannot be imported"),
    ("noqueue", "cannot be imported"),
    (5, "cannot be imported"),
    ("pathlib.Path", "no complete Queue"),
    ("ticket_priority.queues.get_queue", "no complete Queue"),
    ("tests.queues.test_choice.HalfQueue", "no complete Queue"),
    ("tests.queues.test_choice.UnconfiguredQueue", "no broker is set"),
]


@pytest.mark.parametrize(("path", "why"), UNUSABLE)
def test_one_that_cannot_be_used_is_named(
    configure: Callable[..., None], path: Any, why: str
) -> None:
    configure(QUEUE={"BACKEND": path})
    with pytest.raises(QueueError, match=why):
        get_queue()
    assert not has_workers()
    found = messages()
    assert set(found) == {"E033"}
    assert why in found["E033"]


def test_one_whose_app_is_missing_is_named(configure: Callable[..., None]) -> None:
    configure(QUEUE=DJANGO_Q)
    with without_django_q():
        assert set(messages()) == {"E033"}
        assert "django_q is not in INSTALLED_APPS" in messages()["E033"]


@pytest.mark.django_db(transaction=True)
def test_tickets_are_saved_though_the_queue_cannot_be_used(
    active_model: ModelVersion, configure: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    configure(QUEUE="nowhere.Queue")
    assert Ticket.objects.create(**OUTAGE).priority == Priority.HIGH
    configure(MODE="async")
    ticket = Ticket.objects.create(**OUTAGE)
    assert only_prediction(ticket).state == Prediction.State.PENDING
    assert "nowhere.Queue" in caplog.text
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("priority_status", "--json", stdout=out)
    assert ended.value.code == 2
    assert "nowhere.Queue" in json.loads(out.getvalue())["findings"][0]["says"]


class TestInline:
    @pytest.mark.django_db(transaction=True)
    def test_the_request_decides_after_the_commit(
        self, active_model: ModelVersion, configure: Callable[..., None]
    ) -> None:
        configure(QUEUE=INLINE, MODE="async")
        ticket = Ticket.objects.create(**OUTAGE)
        assert ticket.priority is None, "the save must not wait for the model"
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH

    def test_a_task_is_run_at_once_with_its_arguments(self, tmp_path: Any) -> None:
        InlineQueue().enqueue("os.mkdir", str(tmp_path / "made"))
        assert (tmp_path / "made").is_dir()

    def test_what_needs_workers_is_named(self, configure: Callable[..., None]) -> None:
        configure(QUEUE=INLINE, MODE="async", TRAINING={"RETRAIN": {}})
        assert set(messages()) == {"W030", "W052"}
