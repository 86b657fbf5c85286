from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.queues.test_django_q import Host

pytestmark = pytest.mark.sqlite

STARTED_BY_A_SERVER = """
import helpdesk.wsgi
from ticket_priority import classifiers
print("loaded" if classifiers.loaded_model_version() else "not loaded")
"""


def test_a_web_process_has_the_model_before_the_first_ticket(tmp_path: Path, toy_run: Any) -> None:
    host = Host(tmp_path, "orm")
    host.prepare(toy_run.artifact_dir)
    started = subprocess.run(
        [sys.executable, "-c", STARTED_BY_A_SERVER],
        env=host.environment,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    assert started.stdout.splitlines()[-1] == "loaded"
