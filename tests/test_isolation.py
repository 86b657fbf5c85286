"""A web process never imports torch, not even to classify, and nothing leaves the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests.support import network
from ticket_priority.models import ModelVersion

HEAVY = ("torch", "lightning", "transformers", "torchmetrics", "sklearn", "pandas")

SET_UP = """
import os, sys
import django
django.setup()
from django.contrib import admin
from django.urls import get_resolver
from importlib import import_module
admin.autodiscover()
import_module("helpdesk.urls")
get_resolver().url_patterns
import ticket_priority.api.urls, ticket_priority.tasks
"""

CLASSIFY = """
from pathlib import Path
from ticket_priority import classifiers
classifier = classifiers.build("transformer", Path(os.environ["ARTIFACT"]))
assert classifier.classify(["outage fire breach"])[0].label == "high"
"""

REPORT = """
heavy = sorted(name for name in {heavy!r} if name in sys.modules)
print("HEAVY", heavy, "onnxruntime" in sys.modules)
"""


def run(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code + REPORT.format(heavy=HEAVY)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment},
        capture_output=True,
        text=True,
        cwd=settings.BASE_DIR,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.sqlite
def test_setting_up_admin_api_and_urls_imports_neither_torch_nor_onnxruntime() -> None:
    assert run(SET_UP) == "HEAVY [] False"


@pytest.mark.sqlite
@pytest.mark.django_db
def test_classifying_imports_onnxruntime_and_not_torch(
    toy_version: ModelVersion, artifact_root: Path, tmp_path: Path
) -> None:
    (home := tmp_path / "home").mkdir()
    done = network.run(
        *("-c", SET_UP + CLASSIFY + REPORT.format(heavy=HEAVY)),
        record=tmp_path,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "ARTIFACT": str(artifact_root / toy_version.directory),
            "HOME": str(home),
            "XDG_CACHE_HOME": "",
        },
    )
    assert done.result.stdout == "HEAVY [] True\n", done.result.stderr
    assert done.attempts == []
    assert not list(home.rglob("*.onnxruntime")), "where it keeps what it will tell Microsoft"


@pytest.mark.sqlite
def test_the_training_room_needs_no_django() -> None:
    code = """
import sys
sys.modules["django"] = None
import ticket_priority.ml.trainers.pipeline, ticket_priority.ml.trainers.classifier
import ticket_priority.ml.trainers.fit, ticket_priority.ml.trainers.linear.train
import ticket_priority.ml.serving.onnx, ticket_priority.ml.serving.linear
print("imported")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == "imported", result.stderr


JOURNEY = """
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from helpdesk.models import Ticket
from ticket_priority.models import ModelVersion

call_command("migrate", verbosity=0)
call_command("load_demo_tickets", verbosity=0)
labelled = Ticket.objects.exclude(priority=None).values_list("pk", flat=True)
Ticket.objects.filter(pk__in=list(labelled[66:])).delete()
Ticket.objects.update(description="")
call_command("train_priority_model", "--model-name=linear", "--activate=never", verbosity=0)
call_command("activate_priority_model", ModelVersion.objects.get().name, verbosity=0)
ticket = Ticket.objects.create(subject="The tills are down")
assert ticket.priority is not None

client = Client(SERVER_NAME="localhost")
client.force_login(User.objects.filter(is_superuser=True)[0])
url = f"/api/tickets/helpdesk.Ticket/{ticket.pk}/"
for path, body in (
    ("/api/predict/", {"text": "The tills are down"}),
    (f"{url}override/", {"priority": "low"}),
    (f"{url}classify/", {}),
):
    answer = client.post(path, body, content_type="application/json")
    assert answer.status_code in (200, 201), answer.content
for path in ("/", "/tickets/", f"/admin/helpdesk/ticket/{ticket.pk}/change/", "/api/schema/"):
    answer = client.get(path)
    assert answer.status_code == 200, path
print("served", answer.status_code)
"""


@pytest.mark.sqlite
def test_from_migrate_to_predict_nothing_leaves_the_machine(tmp_path: Path) -> None:
    done = network.run(
        *("-c", JOURNEY),
        record=tmp_path,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "HELPDESK_DATABASE": "sqlite",
            "HELPDESK_DATABASE_NAME": str(tmp_path / "helpdesk.sqlite3"),
            "TMPDIR": str(tmp_path),
        },
    )
    assert done.result.stdout == "served 200\n", done.result.stderr
    assert done.attempts == []


LEAVE = """
import socket, subprocess, sys, urllib.request

def attempt(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        return
    raise AssertionError(function)

attempt(socket.socket().connect, ("192.0.2.1", 80))
attempt(socket.getaddrinfo, "hub.example", 443)
attempt(urllib.request.urlopen, "https://open.example/")
attempt(socket.socket(type=socket.SOCK_DGRAM).sendto, b"?", ("192.0.2.2", 53))
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).sendall(b"!")
child = "import socket; socket.gethostbyname('child.example')"
assert subprocess.run([sys.executable, "-c", child], capture_output=True).returncode == 1
"""

NATIVE = """
import ctypes, socket
address = socket.AF_INET.to_bytes(2, "little") + (53).to_bytes(2, "big") + bytes([192, 0, 2, 3])
unheard = socket.socket(type=socket.SOCK_DGRAM)
ctypes.CDLL(None).connect(unheard.fileno(), address + bytes(8), 16)
"""


@pytest.mark.sqlite
def test_an_attempt_to_leave_the_machine_is_refused_and_recorded(tmp_path: Path) -> None:
    """Else the tests that find none would say nothing."""
    done = network.run("-c", LEAVE, record=tmp_path)
    assert done.result.returncode == 0, done.result.stderr
    assert [line.split() for line in done.attempts] == [
        ["socket.connect", "192.0.2.1"],
        ["socket.getaddrinfo", "hub.example"],
        ["socket.getaddrinfo", "open.example"],
        ["socket.sendto", "192.0.2.2"],
        ["socket.gethostbyname", "child.example"],
    ]


@pytest.mark.sqlite
@pytest.mark.skipif(not network.can_trace(), reason="strace is not there, or not allowed")
def test_an_attempt_past_python_is_recorded(tmp_path: Path) -> None:
    (line,) = network.run("-c", NATIVE, record=tmp_path).attempts
    assert "192.0.2.3" in line
