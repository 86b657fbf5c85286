"""Hosts whose oddity is their project's own take the journey in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

PROJECTS = ("bare_user", "replica", "two_databases")


# It uses the database that the environment names, under a name of its own.
@pytest.mark.django_db
@pytest.mark.parametrize("project", PROJECTS)
def test_project(project: str, tmp_path: Path) -> None:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")
    }
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    name = os.environ.get("HELPDESK_DATABASE_NAME", "helpdesk")
    journey = Path(__file__).with_name("test_journey.py")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *(str(journey), f"--ds=tests.foreign.projects.{project}", f"--basetemp={tmp_path}/run"),
        ],
        cwd=settings.BASE_DIR,
        env={**kept, "HELPDESK_DATABASE_NAME": f"{name}_{worker}{project}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
