"""Training by the clock: when it is due, and the real processes that do it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

import ticket_priority
from helpdesk.models import Ticket
from tests.queues.test_django_q import Host, stop, wait_for
from tests.support.settings import overlay
from ticket_priority.models import ModelVersion, TrainingRun
from ticket_priority.predictions import workers
from ticket_priority.priorities import Priority
from ticket_priority.starter import install as starter
from ticket_priority.training import history as training_runs
from ticket_priority.training import lock as training_lock
from ticket_priority.training import schedule as retraining

State, Trigger = TrainingRun.State, TrainingRun.Trigger


@pytest.fixture
def plan(settings: Any, artifact_root: Path) -> Callable[..., None]:
    def plan(**values: Any) -> None:
        settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, TRAINING={"RETRAIN": values})

    plan(min_new_labels=2)
    return plan


@pytest.mark.django_db
class TestWhetherItIsDue:
    def test_without_the_setting_nothing_is_done(self, artifact_root: Path) -> None:
        assert retraining.retrain() == "Not begun: RETRAIN is not set."
        assert not TrainingRun.objects.exists()

    def test_a_wrong_setting_is_said(self, plan: Callable[..., None]) -> None:
        plan(every_days=0)
        assert "every_days must be" in retraining.retrain()
        plan(weekly=True)
        assert "weekly" in retraining.retrain()

    def test_too_few_new_labels(self, plan: Callable[..., None]) -> None:
        Ticket.objects.create(subject="one", priority=Priority.LOW)
        said = retraining.retrain()
        assert said == "Not begun: there are 1 new labels, and RETRAIN asks for 2."
        run = TrainingRun.objects.get()
        assert (run.state, run.trigger, run.message) == (State.REFUSED, Trigger.SCHEDULE, said)
        assert "every 7 days" in retraining.retrain()
        assert TrainingRun.objects.count() == 1

    def test_what_counts_came_since_the_newest_version_was_trained(
        self, plan: Callable[..., None]
    ) -> None:
        old = Ticket.objects.create(subject="old", priority=Priority.LOW)
        starter.install_linear()
        assert retraining.count_new_labels() == (1, None), "a starter was trained elsewhere"
        version = ModelVersion.objects.create(name="v1", kind="x", directory="v1", digest="0")
        assert retraining.count_new_labels() == (0, version)
        ticket_priority.override(old, Priority.HIGH)
        assert retraining.count_new_labels() == (1, version)
        assert "since v1 was trained there are 1 new labels" in retraining.retrain()

    @pytest.mark.parametrize(("days", "is_due"), [(6, False), (6.6, True), (8, True)])
    def test_the_days_between(self, plan: Callable[..., None], days: float, is_due: bool) -> None:
        TrainingRun.objects.create(trigger=Trigger.COMMAND, state=State.SUCCEEDED)
        TrainingRun.objects.create(
            trigger=Trigger.SCHEDULE,
            state=State.FAILED,
            started_at=timezone.now() - timedelta(days=days),
        )
        assert ("new labels" in retraining.retrain()) is is_due

    def test_another_training(self, plan: Callable[..., None], artifact_root: Path) -> None:
        plan(min_new_labels=0)
        with training_lock.hold(artifact_root):
            assert retraining.retrain() == "Not begun: another training is running."
        assert TrainingRun.objects.get().state == State.REFUSED

    def test_a_folder_for_the_log_that_cannot_be_written(
        self, plan: Callable[..., None], tmp_path: Path
    ) -> None:
        plan(min_new_labels=0)
        (tmp_path / "outputs").touch()
        assert "could not be begun" in retraining.retrain()
        assert TrainingRun.objects.get().state == State.FAILED

    def test_a_process_that_cannot_be_started(
        self, plan: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan(min_new_labels=0)
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        assert "could not be begun" in retraining.retrain()
        run = TrainingRun.objects.get()
        assert run.state == State.FAILED
        assert "/no/such/python" in run.message


@pytest.mark.django_db
def test_the_schedule_comes_and_goes_with_the_setting(settings: Any, artifact_root: Path) -> None:
    from django_q.models import Schedule

    def names() -> set[str]:
        workers.ensure_schedules("default")
        return set(Schedule.objects.values_list("name", flat=True))

    assert names() == {workers.SWEEP_NAME}
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, TRAINING={"RETRAIN": {}})
    assert names() == {workers.SWEEP_NAME, workers.RETRAIN_NAME}
    schedule = Schedule.objects.get(name=workers.RETRAIN_NAME)
    assert (schedule.func, schedule.schedule_type) == (workers.RETRAIN_TASK, Schedule.DAILY)
    tomorrow = timezone.now() + timedelta(days=1)
    Schedule.objects.filter(pk=schedule.pk).update(next_run=tomorrow)
    assert names() == {workers.SWEEP_NAME, workers.RETRAIN_NAME}
    schedule.refresh_from_db()
    assert schedule.next_run == tomorrow, "a migration must not begin a training"
    assert Schedule.objects.get(name=workers.SWEEP_NAME).func == workers.SWEEP_TASK
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, TRAINING={"RETRAIN": None})
    assert names() == {workers.SWEEP_NAME}


def test_commands_are_run_as_the_project_runs_them(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert retraining._manage() == [sys.executable, str(settings.BASE_DIR / "manage.py")]
    own = tmp_path / "manage.py"
    own.touch()
    monkeypatch.setattr(sys, "argv", [str(own), "qcluster"])
    assert retraining._manage() == [sys.executable, str(own)]
    assert "PYTHONPATH" not in retraining._environment().keys() - os.environ.keys()
    own.unlink()
    settings.BASE_DIR = tmp_path
    assert retraining._manage() == [sys.executable, "-m", "django"]
    found = retraining._environment()
    assert found["DJANGO_SETTINGS_MODULE"] == "tests.settings"
    assert str(Path(ticket_priority.__file__).parents[1]) in found["PYTHONPATH"].split(os.pathsep)


SETTINGS = """
from helpdesk.settings import *
TICKET_PRIORITY = {**TICKET_PRIORITY, **%r}
"""
LABEL = (
    "from helpdesk.models import Ticket\n"
    "from tests.ml.conftest import toy_rows\n"
    "Ticket.objects.bulk_create("
    "[Ticket(subject=row.text, priority=row.label) for row in toy_rows(240, 5)])"
)
SETTLE = "from ticket_priority.training.history import settle_dead\nsettle_dead()"
RETRAIN = "from ticket_priority.training.schedule import retrain\nprint(retrain())"


class RetrainingHost(Host):
    """The demo host with labelled tickets, and settings of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "orm", "sync")
        self.models = folder / "models"
        self.database = Path(self.environment["HELPDESK_DATABASE_NAME"])
        self.environment |= {
            "DJANGO_SETTINGS_MODULE": "retraining_settings",
            "PYTHONPATH": f"{folder}{os.pathsep}{Path(ticket_priority.__file__).parents[1]}",
            "HELPDESK_OUTPUT_DIR": str(folder / "outputs"),
        }

    def configure(self, **options: Any) -> None:
        defaults = {"TRAINING": {"MODEL_NAME": "linear", "RETRAIN": {"min_new_labels": 200}}}
        values = overlay(defaults, **options)
        (self.folder / "retraining_settings.py").write_text(SETTINGS % values)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Read a table of the plugin's, in no time: Django would take seconds to start."""
        with closing(sqlite3.connect(self.database)) as database:
            database.row_factory = sqlite3.Row
            found = database.execute(f"SELECT * FROM ticket_priority_{table} ORDER BY id")  # noqa: S608
            return [dict(row) for row in found]

    def runs(self) -> list[dict[str, Any]]:
        return self.rows("trainingrun")

    def versions(self) -> list[dict[str, Any]]:
        return self.rows("modelversion")

    def states(self) -> list[str]:
        return [run["state"] for run in self.runs()]

    def settle(self) -> list[str]:
        self.shell(SETTLE)
        return self.states()

    def log(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "outputs").rglob("*.log"))

    def wait_until_training(self) -> int:
        """Wait for `never_end` to train; return the number of the process it started."""
        wait_for(lambda: str("\nchild " in self.log()), "True", seconds=90)
        return int(self.log().split("\nchild ")[1].split()[0])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a host with labelled tickets, to be copied."""
    host = RetrainingHost(tmp_path_factory.mktemp("host"))
    host.configure()
    host.manage("migrate", "--verbosity=0")
    host.shell(LABEL)
    return host.database


@pytest.fixture
def host(tmp_path: Path, database: Path) -> RetrainingHost:
    host = RetrainingHost(tmp_path)
    host.configure()
    shutil.copy(database, host.database)
    return host


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.sqlite
class TestRealProcesses:
    def test_a_worker_begins_it_and_the_version_serves(self, host: RetrainingHost) -> None:
        """A real qcluster: its workers are forked daemons, and outlive nothing."""
        worker = host.start_worker()
        try:
            wait_for(lambda: str(host.states()), "['succeeded']", seconds=120)
        finally:
            stop(worker)
        (run,), (version,) = host.runs(), host.versions()
        name = version["name"]
        assert version["is_active"]
        assert (run["trigger"], run["model_version_id"]) == ("schedule", version["id"])
        assert run["message"].startswith(f"{name} was activated: no version was active;")
        assert name in Path(run["log"]).read_text()
        assert "every 7 days" in host.shell(RETRAIN)

    def test_a_run_that_is_killed_is_interrupted_and_frees_the_slot(
        self, host: RetrainingHost
    ) -> None:
        host.configure(TRAINING={"TRAINER": "tests.support.trainers.never_end"})
        assert "Begun in process" in host.shell(RETRAIN)
        child = host.wait_until_training()
        (run,) = host.runs()
        assert run["state"] == "running"
        assert training_lock.is_held(host.models)
        assert os.getsid(run["pid"]) == run["pid"], "it is detached from who began it"
        os.kill(run["pid"], signal.SIGKILL)
        wait_for(lambda: str(host.settle()), "['interrupted']", seconds=60)
        assert not training_lock.is_held(host.models)
        os.kill(child, signal.SIGKILL)
        host.configure()
        host.manage("train_priority_model", "--verbosity=0")
        assert host.states() == ["interrupted", "succeeded"]

    def test_a_run_that_is_told_to_stop_says_so(self, host: RetrainingHost) -> None:
        host.configure(TRAINING={"TRAINER": "tests.support.trainers.never_end"})
        host.shell(RETRAIN)
        child = host.wait_until_training()
        (run,) = host.runs()
        os.kill(run["pid"], signal.SIGTERM)
        wait_for(lambda: str(host.states()), "['interrupted']", seconds=30)
        assert host.runs()[0]["message"] == "It was stopped."
        os.kill(child, signal.SIGKILL)

    def test_a_run_that_takes_too_long_ends_with_all_it_started(self, host: RetrainingHost) -> None:
        host.configure(
            TRAINING={
                "TRAINER": "tests.support.trainers.never_end",
                "RETRAIN": {"min_new_labels": 200, "timeout_minutes": 0.5},
            }
        )
        host.shell(RETRAIN)
        child = host.wait_until_training()
        wait_for(lambda: str(host.states()), "['failed']", seconds=90)
        assert "longer than 0.5 minutes" in host.runs()[0]["message"]
        assert host.versions() == []
        assert not is_alive(child)
        assert not training_lock.is_held(host.models)
        assert [path.name for path in host.models.iterdir()] == [".training.lock"]

    def test_lightning_lets_it_end(
        self, host: RetrainingHost, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """The real trainer, in the middle of an epoch."""
        from tests.ml.conftest import write_tiny_encoder

        encoder = write_tiny_encoder(tmp_path_factory.mktemp("encoder"))
        endless = {
            "max_epochs": 100_000,
            "patience": None,
            "learning_rate": 1e-9,
            "max_length": 48,
            "accelerator": "cpu",
            "threads": 1,
            "precision": "32-true",
            "trainable_layers": 2,
            "few_labels": 0,
        }
        host.configure(TRAINING={"MODEL_NAME": str(encoder), "HYPERPARAMETERS": endless})
        host.shell(RETRAIN)
        outputs = host.folder / "outputs"
        wait_for(lambda: str(any(outputs.rglob("*.ckpt"))), "True", seconds=120)
        # As the clock would, but when it is in the middle of it, however busy this machine is.
        os.kill(host.runs()[0]["pid"], signal.SIGALRM)
        wait_for(lambda: str(host.states()), "['failed']", seconds=60)
        assert "longer than 180 minutes" in host.runs()[0]["message"], host.log()
        assert host.versions() == []
        pid = host.runs()[0]["pid"]
        wait_for(lambda: str(is_alive(pid)), "False", seconds=30)
        assert [path.name for path in host.models.iterdir()] == [".training.lock"]

    def test_of_two_that_are_begun_at_once_one_trains(self, host: RetrainingHost) -> None:
        host.shell(
            "from ticket_priority.training import schedule as retraining\n"
            "plan = retraining.get_settings().training.retraining\n"
            "print(retraining._start(plan), retraining._start(plan))"
        )
        wait_for(lambda: str(sorted(host.states())), "['refused', 'succeeded']", seconds=60)
        assert len(host.versions()) == 1

    def test_a_full_disk_fails_the_run_and_leaves_no_half_version(
        self, host: RetrainingHost
    ) -> None:
        host.configure(TRAINING={"TRAINER": "tests.support.trainers.fill_the_disk"})
        host.shell(RETRAIN)
        wait_for(lambda: str(host.states()), "['failed']", seconds=60)
        assert "No space left on device" in host.runs()[0]["message"]
        assert host.versions() == []
        assert [path.name for path in host.models.iterdir()] == [".training.lock"]

    def test_a_process_that_dies_before_it_begins_is_interrupted(
        self, host: RetrainingHost
    ) -> None:
        host.shell(
            "import sys\n"
            "from ticket_priority.training import schedule as retraining\n"
            "retraining._manage = lambda: [sys.executable, '-c', 'raise SystemExit(1)']\n"
            "print(retraining.retrain())"
        )
        wait_for(lambda: str(host.settle()), "['interrupted']", seconds=60)


@pytest.mark.django_db(transaction=True)
def test_a_run_goes_on_in_the_row_that_the_schedule_wrote(artifact_root: Path) -> None:
    row = training_runs.announce("run.log")
    with pytest.raises(KeyboardInterrupt), training_runs.recorded(row.pk):
        raise KeyboardInterrupt
    run = TrainingRun.objects.get()
    assert (run.pk, run.state, run.log, run.pid) == (
        row.pk,
        State.INTERRUPTED,
        "run.log",
        os.getpid(),
    )
    with training_runs.recorded(row.pk + 100):
        pass
    assert TrainingRun.objects.filter(trigger=Trigger.SCHEDULE).count() == 2
