"""Run the tests that touch the database on PostgreSQL and MariaDB as well, at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from support.services import IN_CI, is_listening

USERS = {"postgresql": "postgres", "mariadb": "root"}
NOT_ABOUT_DATABASES = (
    "tests/browser",
    "tests/ml",
    "tests/test_locale.py",
    "tests/test_packaging.py",
    "tests/training/test_diagnosis.py",
    "tests/training/test_run.py",
)
# What they read and write is that of the tests of the linear starter, and of other imports.
NOT_ABOUT_DATABASES_EITHER = (
    "tests/starter/test_install.py::TestBetter",
    "tests/training/test_exchange.py::"
    "test_a_model_that_is_worse_on_the_tickets_here_does_not_serve",
)


def main() -> int:
    absent = [database for database in USERS if not is_listening(database)]
    for database in absent:
        print(f"SKIPPED {database}: it does not listen on its port; start it to run these.")
    present = [database for database in USERS if database not in absent]
    with ThreadPoolExecutor(len(USERS)) as together:
        runs = list(together.map(_run, present))
    for database, run in zip(present, runs, strict=True):
        print(f"-- {database}\n{run.stdout}", flush=True)
    return int(any(run.returncode for run in runs) or (IN_CI and bool(absent)))


def _run(database: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HELPDESK_DATABASE": database,
        "HELPDESK_DATABASE_USER": USERS[database],
    }
    left_out = [f"--ignore={path}" for path in NOT_ABOUT_DATABASES]
    left_out += [f"--deselect={name}" for name in NOT_ABOUT_DATABASES_EITHER]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup"]
    command += ["--no-loadscope-reorder", *left_out]
    command += ["-p", "tests.support.only_database", "-m", "not sqlite"]
    return subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
