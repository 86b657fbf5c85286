from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE
from ticket_priority import muted
from ticket_priority.exceptions import QueueError
from ticket_priority.models import ModelVersion, Prediction, TrainingRun
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions import kill_switch as switch
from ticket_priority.predictions.workers import SWEEP_NAME, ensure_schedules
from ticket_priority.queues import django_q, get_queue, reset
from ticket_priority.queues.base import Workers
from ticket_priority.reports import backlog, status
from ticket_priority.reports.status import Level, Thresholds
from ticket_priority.starter import install as starter

State, Reason = Prediction.State, Prediction.Reason


@pytest.fixture
def serving(db: None, artifact_root: Path, fresh_classifier: None) -> ModelVersion:
    """Return the starter, active; the sweep is due in a minute, as a running worker leaves it."""
    from django_q.models import Schedule

    ensure_schedules("default")
    Schedule.objects.update(next_run=timezone.now() + timedelta(minutes=1))
    version = starter.install_linear()
    version.activate()
    return version


def prediction(state: State, reason: Reason, *, age: float = 0, **values: Any) -> Prediction:
    """Store a prediction about a ticket that came so many seconds ago."""
    with muted():
        ticket = Ticket.objects.create(**OUTAGE)
    at = timezone.now() - timedelta(seconds=age)
    return Prediction.objects.create(
        content_type=content_type_of(Ticket),
        object_id=str(ticket.pk),
        mode="sync",
        state=state,
        reason=reason,
        created_at=at,
        **values,
    )


def findings(**thresholds: float) -> list[tuple[Level, str]]:
    found = status.findings(status.read(), Thresholds(**thresholds))
    return [(finding.level, finding.says) for finding in found]


def the_finding(**thresholds: float) -> tuple[Level, str]:
    (found,) = findings(**thresholds)
    return found


def run(*words: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    out = StringIO()
    try:
        call_command("priority_status", *words, stdout=out)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code, out.getvalue()
    return 0, out.getvalue()


class TestWhatIsWrong:
    def test_nothing(self, serving: ModelVersion) -> None:
        prediction(State.APPLIED, Reason.OK, age=1e6)
        assert findings() == []

    def test_no_model(self, db: None, artifact_root: Path) -> None:
        level, says = findings()[0]
        assert level == Level.CRITICAL
        assert "--starter" in says

    def test_a_model_that_does_not_load(self, serving: ModelVersion) -> None:
        ModelVersion.objects.update(load_error="no memory")
        level, says = the_finding()
        assert level == Level.CRITICAL
        assert "no memory" in says

    def test_a_lost_artifact(self, serving: ModelVersion, artifact_root: Path) -> None:
        shutil.rmtree(artifact_root)
        level, says = the_finding()
        assert level == Level.CRITICAL
        assert str(artifact_root) in says

    def test_a_shadow_that_fails(self, serving: ModelVersion) -> None:
        ModelVersion.objects.create(
            name="rival", directory=serving.directory, is_shadow=True, load_error="no memory"
        )
        level, says = the_finding()
        assert level == Level.WARNING
        assert "rival" in says

    @pytest.mark.parametrize(
        ("age", "expected"), [(299, None), (301, Level.WARNING), (3601, Level.CRITICAL)]
    )
    def test_tickets_that_wait(
        self, serving: ModelVersion, age: float, expected: Level | None
    ) -> None:
        prediction(State.PENDING, Reason.QUEUED, age=age)
        prediction(State.PENDING, Reason.DEADLINE)
        assert [level for level, _says in findings()] == ([] if expected is None else [expected])

    def test_the_thresholds_are_the_callers(self, serving: ModelVersion) -> None:
        prediction(State.PENDING, Reason.QUEUED, age=100)
        assert the_finding(max_age=60)[0] == Level.WARNING
        assert the_finding(max_age=60, critical_age=90)[0] == Level.CRITICAL
        prediction(State.PENDING, Reason.QUEUED, age=1e6)
        assert findings(max_age=0, critical_age=0) == []

    def test_switched_off_tickets_are_meant_to_wait(
        self, serving: ModelVersion, configure: Callable[..., None]
    ) -> None:
        prediction(State.PENDING, Reason.DISABLED, age=1e6)
        switch.turn(on=False, reason="all High today")
        assert the_finding() == (Level.WARNING, "Classification is switched off: all High today")
        configure(ENABLED=False)
        assert "ENABLED" in the_finding()[1]

    @pytest.mark.parametrize("reason", [Reason.MODEL_ERROR, Reason.BREAKER_OPEN])
    def test_a_model_that_fails_now(self, serving: ModelVersion, reason: Reason) -> None:
        prediction(State.PENDING, reason, age=200)
        assert reason in the_finding()[1]
        assert reason not in the_finding(max_age=200)[1]
        # The ticket is old, and yet it failed a moment ago.
        Prediction.objects.update(claimed_at=timezone.now())
        waits, fails = findings(max_age=200)
        assert "oldest" in waits[1]
        assert reason in fails[1]

    def test_tickets_that_were_given_up(self, serving: ModelVersion) -> None:
        row = prediction(State.FAILED, Reason.MODEL_ERROR, decided_at=timezone.now())
        level, says = the_finding()
        assert level == Level.WARNING
        assert says.startswith("1 tickets were given up")
        assert findings(failed_within=0) == []
        Prediction.objects.filter(pk=row.pk).update(decided_at=timezone.now() - timedelta(days=2))
        assert findings() == []

    def test_a_sweep_that_is_overdue_or_missing(self, serving: ModelVersion) -> None:
        from django_q.models import Schedule

        sweep = Schedule.objects.filter(name=SWEEP_NAME)
        sweep.update(next_run=timezone.now() - timedelta(minutes=1))
        assert findings() == []
        sweep.update(next_run=timezone.now() - timedelta(minutes=3))
        assert "qcluster" in the_finding()[1]
        sweep.delete()
        assert "migrate" in the_finding()[1]

    def test_a_mode_without_its_queue(
        self, serving: ModelVersion, configure: Callable[..., None], settings: Any
    ) -> None:
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_q"]
        assert findings() == []
        configure(MODE="async")
        assert "helpdesk.Ticket" in the_finding()[1]

    @pytest.mark.parametrize(
        ("trigger", "state", "is_told"),
        [
            ("schedule", "failed", True),
            ("schedule", "interrupted", True),
            ("schedule", "refused", False),
            ("command", "failed", False),
        ],
    )
    def test_the_last_training(
        self, serving: ModelVersion, trigger: str, state: str, is_told: bool
    ) -> None:
        TrainingRun.objects.create(trigger=trigger, state=state, message="out of memory")
        assert [level for level, _says in findings()] == [Level.WARNING] * is_told
        TrainingRun.objects.create(trigger=trigger, state="succeeded")
        assert findings() == []

    def test_the_worst_comes_first(self, serving: ModelVersion) -> None:
        switch.turn(on=False)
        ModelVersion.objects.update(load_error="no memory")
        assert [level for level, _says in findings()] == [Level.CRITICAL, Level.WARNING]


class TestCost:
    def test_five_queries(self, serving: ModelVersion, django_assert_num_queries: Any) -> None:
        prediction(State.PENDING, Reason.QUEUED)
        with django_assert_num_queries(5):
            status.read()

    def test_decided_predictions_are_not_read(self, serving: ModelVersion) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("reads the plan as SQLite tells it")
        with CaptureQueriesContext(connection) as captured:
            backlog.read()
        (query,) = captured.captured_queries
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN QUERY PLAN " + query["sql"])
            plan = " ".join(row[3] for row in cursor.fetchall())
        assert "SEARCH ticket_priority_prediction USING INDEX tp_prediction_state" in plan


@pytest.fixture
def cache(settings: Any, tmp_path: Path) -> Callable[[str], None]:
    """Return a function that gives django-q2 another cache, and its broker to connect anew."""

    def use(backend: str) -> None:
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path / "cache")}}
        reset()

    return use


class Sentinel:
    """What a running cluster tells of itself."""

    parent_pid = pid = 1
    cluster_id = "one"
    reincarnations = 0
    monitor = pusher = None
    pool: tuple[()] = ()

    def __init__(self) -> None:
        self.tob: datetime = timezone.now()
        queue = get_queue()
        assert isinstance(queue, django_q.DjangoQQueue)
        self.broker = queue._broker

        class Queue:
            def qsize(self) -> int:
                return 0

        self.result_queue = self.task_queue = Queue()

    def status(self) -> str:
        return "Idle"


class TestWorkers:
    @pytest.mark.parametrize("backend", ["locmem.LocMemCache", "dummy.DummyCache"])
    def test_a_cache_of_this_process_alone_says_nothing(
        self, serving: ModelVersion, cache: Callable[[str], None], backend: str
    ) -> None:
        cache(f"django.core.cache.backends.{backend}")
        assert status.read().queue.workers == Workers.UNKNOWN

    def test_a_cache_on_this_machine_tells_of_a_worker_and_not_of_its_absence(
        self, serving: ModelVersion, cache: Callable[[str], None]
    ) -> None:
        from django_q.status import Stat

        cache("django.core.cache.backends.filebased.FileBasedCache")
        assert status.read().queue.workers == Workers.UNKNOWN
        Stat(Sentinel()).save()
        assert status.read().queue.workers == Workers.ALIVE

    # MariaDB would commit the test's rows with the cache's table.
    @pytest.mark.sqlite
    def test_a_cache_for_all_tells_both(
        self, serving: ModelVersion, cache: Callable[[str], None]
    ) -> None:
        from django_q.status import Stat

        cache("django.core.cache.backends.db.DatabaseCache")
        call_command("createcachetable", verbosity=0)
        assert status.read().queue.workers == Workers.ABSENT
        assert "qcluster" in the_finding()[1]
        Stat(Sentinel()).save()
        assert status.read().queue.workers == Workers.ALIVE
        assert findings() == []

    def test_a_broker_that_is_down_is_no_error(
        self, serving: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from django_q.conf import Conf

        monkeypatch.setattr(Conf, "ORM", None)
        monkeypatch.setattr(Conf, "REDIS", "redis://127.0.0.1:1/0")
        reset()
        assert status.read().queue.workers == Workers.UNKNOWN

    def test_a_broker_that_keeps_silent_is_not_waited_for(
        self,
        serving: ModelVersion,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        from django_q.conf import Conf

        monkeypatch.setattr(django_q, "BROKER_SECONDS", 0.1)
        monkeypatch.setattr(Conf, "ORM", None)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            # Or without the limit this test would wait for ever.
            patient = {"port": silent.getsockname()[1], "socket_timeout": 10}
            monkeypatch.setattr(Conf, "REDIS", patient)
            reset()
            assert status.read().queue.workers == Workers.UNKNOWN
        assert caplog.records[-1].exc_info is not None
        kind, error, _traceback = caplog.records[-1].exc_info
        assert kind is QueueError
        assert "The broker of django-q2 did not answer within 0.1 s" in str(error)


@pytest.fixture(autouse=True)
def own_broker() -> Iterator[None]:
    """Leave no broker of a test's own behind."""
    yield
    reset()


class TestCommand:
    def test_all_is_well(self, serving: ModelVersion) -> None:
        code, told = run()
        assert code == 0
        lines = told.splitlines()
        assert lines[0] == "OK"
        assert any(serving.name in line and "a starter" in line for line in lines)
        assert "source    helpdesk.Ticket, sync" in lines
        assert "pending   0" in lines
        assert "each process's own" in lines[-1]

    def test_a_warning(self, serving: ModelVersion) -> None:
        switch.turn(on=False, reason="all High today")
        code, told = run()
        assert code == 1
        assert told.splitlines()[0].startswith("WARNING: Classification is switched off: all High")

    def test_critical(self, db: None, artifact_root: Path) -> None:
        code, told = run("--json")
        assert code == 2
        assert json.loads(told)["level"] == "critical"

    def test_thresholds(self, serving: ModelVersion) -> None:
        prediction(State.PENDING, Reason.QUEUED, age=100)
        assert run()[0] == 0
        assert run("--max-age", "60")[0] == 1
        assert run("--critical-age", "60")[0] == 2

    def test_json(self, serving: ModelVersion) -> None:
        waiting = prediction(State.PENDING, Reason.QUEUED, age=100)
        failed = prediction(State.FAILED, Reason.MODEL_ERROR, decided_at=timezone.now())
        code, told = run("--json")
        found = json.loads(told)
        assert (code, found["code"], found["level"]) == (1, 1, "warning")
        assert found["active"]["name"] == serving.name
        assert found["active"]["is_starter"] is True
        assert found["active"]["error"] == ""
        assert found["shadow"] is None
        assert found["switch"] == {"on": True, "enabled": True, "since": None, "reason": ""}
        assert found["modes"] == {"helpdesk.Ticket": "sync"}
        assert found["queue"]["installed"] is True
        assert found["queue"]["workers"] == "unknown"
        assert found["training_run"] is None
        at = waiting.created_at.isoformat(timespec="seconds")
        assert found["backlog"]["pending"] == 1
        assert 100 <= found["backlog"]["oldest_seconds"] < 160
        assert found["backlog"]["reasons"] == {
            "queued": {"count": 1, "oldest_at": at, "newest_at": at}
        }
        assert found["backlog"]["failed"] == 1
        assert failed.decided_at is not None
        last = failed.decided_at.isoformat(timespec="seconds")
        assert found["backlog"]["last_failed_at"] == last

    def test_a_database_that_does_not_answer_is_critical(
        self, db: None, settings: Any, tmp_path: Path
    ) -> None:
        with connections["default"].execute_wrapper(_refuse):
            code, told = run()
        assert code == 2
        assert told.startswith("CRITICAL: The database cannot be asked: gone")

    def test_it_says_what_the_last_training_came_to(self, serving: ModelVersion) -> None:
        TrainingRun.objects.create(trigger="command", state="failed", message="out of memory")
        assert "failed (command)" in run()[1]
        assert run("--verbosity", "0") == (0, "")


def _refuse(*args: Any) -> None:
    from django.db import OperationalError

    raise OperationalError("gone")
