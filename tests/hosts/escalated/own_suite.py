"""Run escalated-django's own test suite, the one in its wheel, without the plugin or with it.

Run: python own_suite.py --junit FILE [--plugin]

With the plugin every test classifies, in the mode sync, with the toy model. The run fails where
the suite could not be run, or where nothing was classified; what passes is the caller's to compare.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest


class Hurrying:
    """Hashes passwords in one round: most of the suite's time goes into those of its users."""

    def pytest_sessionstart(self) -> None:
        from django.contrib.auth.hashers import PBKDF2PasswordHasher

        PBKDF2PasswordHasher.iterations = 1


class Classifying:
    """Gives each test database the toy model, and counts what it predicts."""

    def __init__(self) -> None:
        self.predicted: Counter[str] = Counter()

    def pytest_sessionstart(self) -> None:
        from django.db.models.signals import post_migrate, post_save

        from ticket_priority.models import Prediction

        # Sent at each flush too, so the tests that empty the database classify as well.
        post_migrate.connect(self.activate, weak=False)
        post_save.connect(self.count, sender=Prediction, weak=False)

    def activate(self, sender: Any, **kwargs: Any) -> None:
        from toy_model import activate_toy

        if sender.name == "ticket_priority":
            activate_toy()

    def count(self, instance: Any, created: bool, **kwargs: Any) -> None:
        if created:
            self.predicted[instance.state] += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        counts = ", ".join(f"{count} {state}" for state, count in self.predicted.items())
        terminalreporter.write_line(f"Predictions: {counts or 'none'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--junit", required=True, type=Path)
    parser.add_argument("--plugin", action="store_true")
    parser.add_argument("--checkout", help="not needed: the wheel holds its tests")
    options = parser.parse_args()

    import tests

    suite = Path(str(tests.__file__)).parent
    if suite.parent.name != "site-packages":
        raise SystemExit(f"{suite} is not the suite of the installed escalated-django.")
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    classifying = Classifying()
    settings = "own_suite_settings" if options.plugin else "tests.settings"
    status = pytest.main(
        [
            str(suite),
            f"--ds={settings}",
            f"--junit-xml={options.junit}",
            f"--rootdir={suite.parent}",
            f"--config-file={os.devnull}",
            "-q",
            "--tb=no",
            "-rN",
            "-p",
            "no:cacheprovider",
        ],
        plugins=[Hurrying(), classifying] if options.plugin else [Hurrying()],
    )
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return int(status)
    return int(options.plugin and not classifying.predicted["applied"])


if __name__ == "__main__":
    raise SystemExit(main())
