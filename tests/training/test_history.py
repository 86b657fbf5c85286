from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone

from helpdesk.models import Ticket
from tests.ml.conftest import toy_rows
from tests.support.faults import lose_connection
from tests.support.settings import overlay
from ticket_priority.models import ModelVersion, TrainingRun
from ticket_priority.training import history, lock
from ticket_priority.training.run import configure, train_model

pytestmark = pytest.mark.django_db

State = TrainingRun.State


@pytest.fixture
def linear(settings: Any, artifact_root: Path, fresh_classifier: None) -> Path:
    """Labelled tickets, and settings that train on them in a second; return ARTIFACT_ROOT."""
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, TRAINING={"MODEL_NAME": "linear"})
    Ticket.objects.bulk_create(
        [Ticket(subject=row.text, priority=row.label) for row in toy_rows(240, 5)]
    )
    return artifact_root


def train(*arguments: str) -> str:
    out = StringIO()
    call_command("train_priority_model", *arguments, stdout=out)
    return out.getvalue()


def test_a_run_is_written_down_with_what_came_of_it(linear: Path) -> None:
    train()
    run, version = TrainingRun.objects.get(), ModelVersion.objects.get()
    assert (run.state, run.trigger, run.model_version) == (State.SUCCEEDED, "command", version)
    assert run.message.startswith(f"{version.name} was activated: no version was active;")
    assert (run.pid, run.host) == (os.getpid(), history._host())
    assert run.finished_at is not None
    assert run.finished_at > run.started_at
    version.is_active = None
    version.save()
    version.delete()
    assert TrainingRun.objects.get().model_version is None


def test_a_refused_run_says_why(artifact_root: Path) -> None:
    with pytest.raises(CommandError):
        train()
    run = TrainingRun.objects.get()
    assert run.state == State.REFUSED
    assert "There are 0 usable tickets" in run.message


def test_another_run_at_the_same_time_is_refused(linear: Path) -> None:
    with lock.hold(linear), pytest.raises(CommandError, match="Another training run"):
        train()
    assert TrainingRun.objects.get().state == State.REFUSED


@pytest.mark.parametrize(
    ("arguments", "settings_", "message"),
    [
        (["--max-length=9999"], {}, "max_length must be"),
        ([], {"TRAINING": {"TRAINER": "no.such.trainer"}}, "cannot be imported"),
        (
            [],
            {"TRAINING": {"TRAINER": "tests.support.trainers.break_down"}},
            "RuntimeError: the optimiser broke down",
        ),
        (
            [],
            {"TRAINING": {"TRAINER": "tests.support.trainers.fill_the_disk"}},
            "No space left on device",
        ),
    ],
)
def test_a_failed_run_says_why_and_leaves_nothing(
    linear: Path, settings: Any, arguments: list[str], settings_: dict[str, str], message: str
) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, **settings_)
    with pytest.raises((CommandError, RuntimeError)):
        train(*arguments)
    run = TrainingRun.objects.get()
    assert run.state == State.FAILED
    assert message in run.message
    assert not ModelVersion.objects.exists()
    assert {path.name for path in linear.iterdir()} <= {".training.lock"} if linear.exists() else 1
    assert not lock.is_held(linear)


@pytest.mark.django_db(transaction=True)
def test_a_run_that_cannot_be_written_down_trains_all_the_same(linear: Path) -> None:
    table = TrainingRun._meta.db_table
    with connection.schema_editor() as editor:
        editor.alter_db_table(TrainingRun, table, "set_aside")
    try:
        assert "macro F1" in train()
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(TrainingRun, "set_aside", table)
    assert ModelVersion.objects.active() is not None
    assert not TrainingRun.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(linear: Path) -> None:
    with history.recorded() as succeed:
        version = ModelVersion.objects.create(name="v", kind="x", directory="v", digest="0")
        connection.connection.close()
        succeed(version, "fine")
    assert TrainingRun.objects.get().state == State.SUCCEEDED


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_breaks_while_it_trains_costs_no_version(linear: Path) -> None:
    def break_it(line: str) -> None:
        if line.startswith("Training on"):
            lose_connection()

    outcome = train_model(configure(), progress=break_it)
    assert ModelVersion.objects.active() == outcome.version


def test_what_a_timeout_must_be(linear: Path) -> None:
    for value in ("0", "-1", "inf", "nan", "soon"):
        with pytest.raises(CommandError, match="timeout-minutes"):
            train(f"--timeout-minutes={value}")
    assert not TrainingRun.objects.exists()


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def running(*, minutes: float = 0, **values: Any) -> TrainingRun:
    given = {"trigger": "command", "host": history._host(), "pid": os.getpid(), **values}
    started_at = timezone.now() - timedelta(minutes=minutes)
    return TrainingRun.objects.create(started_at=started_at, **given)


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({}, State.RUNNING),
        ({"pid": None}, State.RUNNING),
        ({"pid": "dead"}, State.INTERRUPTED),
        # Its number was given to another process.
        ({"minutes": 60}, State.INTERRUPTED),
        ({"host": "elsewhere", "pid": 1, "minutes": 60}, State.RUNNING),
        ({"host": "elsewhere", "pid": 1, "minutes": 60 * 25}, State.INTERRUPTED),
    ],
)
def test_a_run_whose_process_died_is_shown_as_interrupted(
    artifact_root: Path, values: dict[str, Any], state: TrainingRun.State
) -> None:
    if values.get("pid") == "dead":
        values = {**values, "pid": dead_process()}
    run = running(**values)
    with lock.hold(artifact_root):
        history.settle_dead()
        run.refresh_from_db()
        assert run.state == State.RUNNING, "what it started may be training still"
    history.settle_dead()
    run.refresh_from_db()
    assert run.state == state
    if state == State.INTERRUPTED:
        assert "ended without a word" in run.message
