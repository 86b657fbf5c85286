"""Whole processes: what they import, and what several of them report together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests.queues.test_django_q import OPEN_TICKET, Host, stop, wait_for

pytestmark = pytest.mark.sqlite

SETTINGS = """
from helpdesk.settings import *
TICKET_PRIORITY = {**TICKET_PRIORITY, "METRICS": {"ENABLED": True, "TOKEN": "open"}}
ROOT_URLCONF = "tests.prometheus.urls"
ALLOWED_HOSTS = ["testserver"]
"""

COUNT = """
import os, django
django.setup()
from ticket_priority.models import Prediction
from ticket_priority.signals import priority_predicted
answered = Prediction(state="applied", reason="ok", mode="sync", priority=2, latency_ms=5)
for count in (2, 3):
    child = os.fork()
    if not child:
        for _ in range(count):
            (told,) = priority_predicted.send_robust(sender=None, prediction=answered)
            assert told[1] is None, told
        os._exit(0)
    os.waitpid(child, 0)
"""


def counting(folder: Path) -> dict[str, str]:
    """Return the environment of a project that counts."""
    (folder / "counting_settings.py").write_text(SETTINGS)
    return {
        "DJANGO_SETTINGS_MODULE": "counting_settings",
        "PYTHONPATH": os.pathsep.join([str(folder), str(settings.BASE_DIR)]),
        "HELPDESK_DATABASE": "sqlite",
        "HELPDESK_DATABASE_NAME": str(folder / "empty.sqlite3"),
    }


def run(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **counting(folder), **environment},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


SCRAPE = """
from django.test import Client
print(Client().get("/metrics/", headers={"Authorization": "Bearer open"}).content.decode())
"""
COUNTED = (
    'ticket_priority_predictions_total{mode="sync",priority="high",reason="ok",state="applied"}'
)


APPLIED = 'reason="ok",state="applied"} 1.0'


def test_processes_that_share_a_folder_are_summed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    result = run(tmp_path, COUNT + SCRAPE, PROMETHEUS_MULTIPROC_DIR=str(shared))
    assert result.returncode == 0, result.stderr
    assert f"{COUNTED} 5.0" in result.stdout
    assert 'ticket_priority_latency_seconds_count{mode="sync"} 5.0' in result.stdout


def test_without_one_each_process_tells_of_itself(tmp_path: Path) -> None:
    result = run(tmp_path, COUNT + SCRAPE)
    assert result.returncode == 0, result.stderr
    assert "ticket_priority_breaker_open 0.0" in result.stdout
    assert COUNTED not in result.stdout


def test_a_folder_that_is_not_there_stops_no_process(tmp_path: Path) -> None:
    code = "import django; django.setup(); print('started')"
    result = run(tmp_path, code, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "none"))
    assert result.stdout == "started\n", result.stderr
    assert "PROMETHEUS_MULTIPROC_DIR" in result.stderr


def test_a_worker_counts_with_the_web_processes_of_its_machine(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    host = Host(tmp_path, "orm")
    host.environment |= counting(tmp_path) | {"PROMETHEUS_MULTIPROC_DIR": str(shared)}
    host.manage("migrate", "--verbosity=0")
    host.manage("activate_priority_model", "--starter=linear", "--verbosity=0")
    host.shell(OPEN_TICKET)
    worker = host.start_worker()
    try:
        wait_for(lambda: str(APPLIED in host.shell(SCRAPE)), "True")
    finally:
        stop(worker)
    told = host.shell(SCRAPE)
    assert 'mode="async",priority="none",reason="queued",state="pending"} 1.0' in told
    assert 'ticket_priority_latency_seconds_count{mode="async"} 1.0' in told


@pytest.mark.parametrize(
    ("before", "told"), [("", "counts"), ("sys.modules['prometheus_client'] = None", "does not")]
)
def test_it_counts_where_it_can(tmp_path: Path, before: str, told: str) -> None:
    code = f"""
import sys
{before}
import django
django.setup()
print("counts" if "ticket_priority.prometheus.counters" in sys.modules else "does not")
"""
    result = run(tmp_path, code)
    assert result.stdout == f"{told}\n", result.stderr


def test_without_the_setting_the_package_is_not_imported_by_us(tmp_path: Path) -> None:
    code = """
import django
django.setup()
import sys
print("ticket_priority.prometheus" in sys.modules)
"""
    result = run(tmp_path, code, DJANGO_SETTINGS_MODULE="tests.settings")
    assert result.stdout == "False\n", result.stderr


def test_the_missing_package_is_named(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["prometheus_client"] = None
import ticket_priority.prometheus.urls
"""
    result = run(tmp_path, code)
    assert "django-ticket-priority[prometheus]" in result.stderr
