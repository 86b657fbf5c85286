"""A real qcluster, with the ORM broker and with Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project

from tests.support.services import require, run_on_server

# One after another: the hosts share a Redis database and the names of theirs on servers.
pytestmark = pytest.mark.sqlite


# Of each of the processes that run the tests side by side, one of its own.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
SERVER_DATABASE = f"ticket_priority_queue_test_{WORKER}"
REDIS_DATABASE = 9 + int(WORKER.removeprefix("gw")) % 6


class Host:
    """The demo host on a database of its own, driven through manage.py."""

    def __init__(self, folder: Path, broker: str, mode: str = "async") -> None:
        self.folder = folder
        self.console: subprocess.Popen[str] | None = None
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if name != "DJANGO_SETTINGS_MODULE"
            },
            "HELPDESK_DATABASE": "sqlite",
            "HELPDESK_DATABASE_NAME": str(folder / "host.sqlite3"),
            "HELPDESK_BROKER": broker,
            "HELPDESK_REDIS_URL": f"redis://127.0.0.1:6379/{REDIS_DATABASE}",
            "HELPDESK_MODE": mode,
            "HELPDESK_ARTIFACT_ROOT": str(folder / "models"),
        }

    def manage(self, *arguments: str, code: str | None = None) -> str:
        command = [sys.executable, "manage.py", *arguments]
        if code is not None:
            command += ["--verbosity=0", "--command", code]
        result = subprocess.run(
            command,
            env=self.environment,
            cwd=project.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def shell(self, code: str) -> str:
        return self.manage("shell", code=code)

    def prepare(self, artifact: Path) -> None:
        """Migrate, and let a copy of the artifact serve."""
        self.manage("migrate", "--verbosity=0")
        self.activate(artifact, "toy")
        self.close()

    def activate(self, artifact: Path, name: str) -> None:
        """Publish a copy of the artifact and make it the version that serves."""
        self.converse(
            "from pathlib import Path\n"
            "from ticket_priority.ml.artifacts import store as artifacts\n"
            "from ticket_priority.models import ModelVersion\n"
            f"published = artifacts.publish(Path({str(artifact)!r}),"
            f" Path({str(self.folder / 'models')!r}), {name!r})\n"
            f"ModelVersion.objects.create(name={name!r}, directory={name!r}, kind=published.kind,"
            " digest=published.digest, metrics=published.metrics).activate()\n"
        )

    def converse(self, code: str) -> str:
        """Run code in one process that lives until `close`; return what it prints."""
        if self.console is None:
            self.console = subprocess.Popen(
                [sys.executable, "-m", "tests.support.console"],
                env={"DJANGO_SETTINGS_MODULE": "helpdesk.settings", **self.environment},
                cwd=project.BASE_DIR,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.console.stdin is not None
        assert self.console.stdout is not None
        self.console.stdin.write(f"{json.dumps(code)}\n")
        self.console.stdin.flush()
        printed, error = json.loads(self.console.stdout.readline())
        assert not error, error
        return str(printed)

    def close(self) -> None:
        """End the process of `converse`."""
        if self.console is not None:
            self.console.communicate(timeout=30)
            self.console = None

    def start_worker(self) -> subprocess.Popen[bytes]:
        with (self.folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "manage.py", "qcluster"],
                env=self.environment,
                cwd=project.BASE_DIR,
                start_new_session=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


SERVERS = {"postgresql": "postgres", "mariadb": "root"}


@pytest.fixture(params=["sqlite orm", "sqlite redis", "postgresql orm", "mariadb redis"])
def host(request: pytest.FixtureRequest, tmp_path: Path, toy_run: Any) -> Iterator[Host]:
    database, broker = request.param.split()
    for service in {database, broker} - {"sqlite", "orm"}:
        require(service)
    host = Host(tmp_path, broker)
    if database in SERVERS:
        host.environment["HELPDESK_DATABASE"] = database
        host.environment["HELPDESK_DATABASE_NAME"] = SERVER_DATABASE
        host.environment["HELPDESK_DATABASE_USER"] = SERVERS[database]
        run_on_server(database, f"DROP DATABASE IF EXISTS {SERVER_DATABASE}")
        run_on_server(database, f"CREATE DATABASE {SERVER_DATABASE}")
    host.manage("migrate", "--verbosity=0")
    host.activate(toy_run.artifact_dir, "toy")
    yield host
    host.close()
    if database in SERVERS:
        run_on_server(database, f"DROP DATABASE {SERVER_DATABASE}")
    if broker == "redis":
        import redis

        redis.Redis(db=REDIS_DATABASE).flushdb()


OPEN_TICKET = (
    "from helpdesk.models import Ticket\n"
    "print(Ticket.objects.create(subject='outage fire breach', description='down').priority)"
)
STATES = (
    "from helpdesk.models import Ticket\n"
    "from ticket_priority.models import Prediction\n"
    "print(list(Ticket.objects.order_by('pk').values_list('priority', flat=True)),"
    " list(Prediction.objects.order_by('pk').values_list('state', flat=True)))"
)


def wait_for(question: Callable[[], str], answer: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    found = question()
    while found != answer and time.monotonic() < deadline:
        time.sleep(0.2)
        found = question()
    assert found == answer


def stop(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(timeout=30)
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)


SERVED_BY = (
    "from ticket_priority.models import Prediction\n"
    "print(list(Prediction.objects.order_by('pk')"
    ".values_list('state', 'model_version__name')))"
)


def test_a_worker_decides_what_the_web_process_left_pending(host: Host, toy_run: Any) -> None:
    worker = host.start_worker()
    try:
        assert host.converse(OPEN_TICKET) == "None"
        wait_for(lambda: host.converse(STATES), "[2] ['applied']")
        # Another version serves in the same worker, without a restart.
        host.activate(toy_run.artifact_dir, "toy-2")
        host.converse(OPEN_TICKET)
        wait_for(lambda: host.converse(SERVED_BY), "[('applied', 'toy'), ('applied', 'toy-2')]")
    finally:
        stop(worker)


@pytest.mark.parametrize("host", ["sqlite orm", "sqlite redis"], indirect=True)
def test_a_lost_message_loses_nothing(host: Host) -> None:
    """The broker forgets everything; the schedule finds the row."""
    assert host.converse(OPEN_TICKET) == "None"
    host.converse(
        "from django_q.models import OrmQ, Schedule\n"
        "from django.utils import timezone\n"
        "from django_q.brokers import get_broker\n"
        "get_broker().purge_queue()\n"
        "Schedule.objects.update(next_run=timezone.now())"
    )
    worker = host.start_worker()
    try:
        wait_for(lambda: host.converse(STATES), "[2] ['applied']", seconds=90)
    finally:
        stop(worker)


SHADOW = (
    "from ticket_priority.models import ModelVersion\n"
    "ModelVersion.objects.get(name='toy').activate()\n"
    "ModelVersion.objects.get(name='toy-2').start_shadow()"
)
SHADOWED = (
    "from ticket_priority.models import ShadowPrediction\n"
    "print(list(ShadowPrediction.objects.values_list('priority', 'model_version__name')))"
)


@pytest.mark.parametrize("host", ["sqlite orm", "mariadb redis"], indirect=True)
def test_the_sweep_has_the_shadow_asked(host: Host, toy_run: Any) -> None:
    host.activate(toy_run.artifact_dir, "toy-2")
    host.converse(SHADOW)
    worker = host.start_worker()
    try:
        host.converse(OPEN_TICKET)
        wait_for(lambda: host.converse(STATES), "[2] ['applied']", seconds=90)
        wait_for(lambda: host.converse(SHADOWED), "[(2, 'toy-2')]", seconds=120)
        assert host.converse(SERVED_BY) == "[('applied', 'toy')]"
    finally:
        stop(worker)


@pytest.mark.parametrize(("broker", "without"), [("orm", "unknown"), ("redis", "absent")])
def test_the_status_says_whether_a_worker_runs_where_that_can_be_seen(
    tmp_path: Path, broker: str, without: str
) -> None:
    if broker == "redis":
        require(broker)
    host = Host(tmp_path, broker)
    host.manage("migrate", "--verbosity=0")
    host.manage("activate_priority_model", "--starter=linear", "--verbosity=0")

    def told() -> tuple[int, str]:
        result = subprocess.run(
            [sys.executable, "manage.py", "priority_status", "--json"],
            env=host.environment,
            cwd=project.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return result.returncode, json.loads(result.stdout)["queue"]["workers"]

    assert told() == (int(without == "absent"), without)
    worker = host.start_worker()
    try:
        wait_for(lambda: told()[1], "unknown" if broker == "orm" else "alive")
        assert told()[0] == 0
    finally:
        stop(worker)
