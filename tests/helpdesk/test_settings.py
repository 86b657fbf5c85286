from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpdesk.settings import Q_CLUSTER

ROOT = Path(__file__).resolve().parents[2]


def settings_in(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if "HELPDESK" not in name}
    clean["HELPDESK_DATABASE_NAME"] = str(tmp_path / "db.sqlite3")
    code = "import helpdesk.settings as s; print(s.DATABASES['default']['ENGINE'], s.DEBUG)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("environment", "printed"),
    [
        ({}, "django.db.backends.sqlite3 True"),
        ({"HELPDESK_DATABASE": "postgresql"}, "django.db.backends.postgresql True"),
        ({"HELPDESK_DATABASE": "mariadb"}, "django.db.backends.mysql True"),
        (
            {"HELPDESK_DEBUG": "0", "HELPDESK_SECRET_KEY": "a-key"},
            "django.db.backends.sqlite3 False",
        ),
    ],
)
def test_the_environment_decides(tmp_path: Path, environment: dict[str, str], printed: str) -> None:
    assert settings_in(tmp_path, **environment).stdout.strip() == printed


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"HELPDESK_DEBUG": "0"}, "Set HELPDESK_SECRET_KEY"),
        ({"HELPDESK_DEBUG": "perhaps"}, "HELPDESK_DEBUG must be 1 or 0"),
        ({"HELPDESK_DATABASE": "oracle"}, "must be one of sqlite, postgresql, mariadb"),
        ({"HELPDESK_MODE": "never"}, "must be one of sync, async, suggest"),
        ({"HELPDESK_DEADLINE_MS": "soon"}, "must be a number of milliseconds, not 'soon'"),
    ],
)
def test_a_bad_environment_is_refused_clearly(
    tmp_path: Path, environment: dict[str, str], complaint: str
) -> None:
    result = settings_in(tmp_path, **environment)
    assert result.returncode != 0
    assert complaint in result.stderr


def test_no_task_runs_twice() -> None:
    longest_wait = (Q_CLUSTER["queue_limit"] / Q_CLUSTER["workers"] + 2) * Q_CLUSTER["timeout"]
    assert Q_CLUSTER["retry"] > longest_wait
    assert Q_CLUSTER["max_attempts"] > 0
