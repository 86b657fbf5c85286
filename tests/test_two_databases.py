"""Tickets in one database, the plugin's rows in another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

pytestmark = pytest.mark.sqlite


def test_decisions_follow_the_commit_and_the_lists_find_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.two_databases", str(tmp_path)],
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "saved": 1,
        "before the commit": 1,
        "after the commit": 2,
        "after a rollback": 2,
        "medium": ["case", "decided"],
        "unset": ["untouched"],
        "suggested": ["decided"],
        "without a prediction": ["case", "untouched"],
        "a refused list": [0, [3, 3, 3]],
        "trained on": {
            "desk": "There are 2 usable tickets whose priority a person set",
            "default": "no such table: uuid_host_case",
        },
        "among many": {
            "visible predictions": 2500,
            "visible overrides": 2500,
            "medium": 2500,
            "unset": 0,
            "failed": 2500,
            "none": 0,
            "low": 2500,
            "labels": 2500,
        },
        "without the plugin's table": 1,
    }
