"""Run the tests that touch the database on PostgreSQL and MariaDB as well."""

from __future__ import annotations

import os
import subprocess
import sys

from support.services import IN_CI, is_listening

USERS = {"postgresql": "postgres", "mariadb": "root"}
NOT_ABOUT_DATABASES = (
    "tests/browser",
    "tests/ml",
    "tests/test_locale.py",
    "tests/test_packaging.py",
    "tests/training/test_run.py",
)


def main() -> int:
    failed = False
    for database, user in USERS.items():
        if not is_listening(database):
            print(f"SKIPPED {database}: it does not listen on its port; start it to run these.")
            failed |= IN_CI
            continue
        print(f"-- {database}", flush=True)
        environment = {
            **os.environ,
            "HELPDESK_DATABASE": database,
            "HELPDESK_DATABASE_USER": user,
        }
        ignored = [f"--ignore={path}" for path in NOT_ABOUT_DATABASES]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "load"]
        command += [*ignored, "-p", "tests.support.only_database", "-m", "not sqlite"]
        failed |= subprocess.run(command, env=environment, check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
