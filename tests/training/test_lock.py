"""Who may train: the lock between processes, and what is known of it where it cannot be taken."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings

from ticket_priority.exceptions import TrainingError, TrainingInProgressError
from ticket_priority.training.lock import hold, is_held

pytestmark = pytest.mark.sqlite

HOLDER = """
import sys, time
from pathlib import Path
from ticket_priority.training.lock import hold
with hold(Path(sys.argv[1])):
    {inside}
    print("held", flush=True)
    time.sleep(600)
"""
FORKED = """import os
    if os.fork() == 0:
        time.sleep({seconds})
        os._exit(0)"""


@contextmanager
def holder(root: Path, *, inside: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock of a folder."""
    code = HOLDER.format(inside=inside)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)],
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_another_process_is_refused_and_told_which_lock_is_held(tmp_path: Path) -> None:
    with holder(tmp_path):
        assert is_held(tmp_path) is True
        with pytest.raises(TrainingInProgressError, match="Another training run holds .*lock"):
            hold(tmp_path).__enter__()
        with pytest.raises(TrainingInProgressError), hold(tmp_path):
            pass


def test_a_process_that_is_killed_releases_it(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        assert is_held(tmp_path) is False
        with hold(tmp_path):
            assert is_held(tmp_path) is True


def test_a_forked_child_that_trains_on_keeps_it_until_it_ends(tmp_path: Path) -> None:
    with holder(tmp_path, inside=FORKED.format(seconds=2)) as process:
        process.kill()
        process.wait()
        assert is_held(tmp_path) is True
        time.sleep(2.5)
        assert is_held(tmp_path) is False


def test_a_program_that_it_starts_does_not_keep_it(tmp_path: Path) -> None:
    with hold(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert is_held(tmp_path) is False
    finally:
        child.kill()
        child.wait()


def test_to_look_takes_nothing_and_makes_nothing(tmp_path: Path) -> None:
    assert is_held(tmp_path / "nowhere") is False
    assert not (tmp_path / "nowhere").exists()
    with hold(tmp_path):
        assert is_held(tmp_path) is True
    assert [is_held(tmp_path), is_held(tmp_path)] == [False, False]
    assert [path.name for path in tmp_path.iterdir()] == [".training.lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="changes user, which root alone may")
def test_a_process_that_may_not_write_there_can_look(tmp_path: Path) -> None:
    with hold(tmp_path):
        pass
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from filelock import lock_descriptor\n"
        "from ticket_priority.training.lock import is_held\n"
        "os.setuid(65534)\n"
        "assert not os.access(Path(sys.argv[1], '.training.lock'), os.W_OK)\n"
        "print(is_held(Path(sys.argv[1])))"
    )

    def look() -> str:
        command = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True)
        return done.stdout or done.stderr

    assert look() == "False\n"
    with hold(tmp_path):
        assert look() == "True\n"


def test_without_filelock_nothing_is_told_and_training_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(tmp_path):
        pass
    monkeypatch.setitem(sys.modules, "filelock", None)
    assert is_held(tmp_path) is None
    with pytest.raises(TrainingError, match=r"needs filelock.*django-ticket-priority\[ml\]"):
        hold(tmp_path).__enter__()


def test_the_admin_needs_neither_filelock_nor_what_only_posix_has() -> None:
    code = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "filelock", "numpy"):
    sys.modules[name] = None
import django
django.setup()
from django.contrib import admin
admin.autodiscover()
import ticket_priority.admin, ticket_priority.tasks
from ticket_priority.models import TrainingRun
print(admin.site.is_registered(TrainingRun))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "True\n", done.stderr
