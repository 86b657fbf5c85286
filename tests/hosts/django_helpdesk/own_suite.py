"""Run django-helpdesk's own tests against the installed django-helpdesk, and write a JUnit file.

The tests come from the last release that ships them, so some fail by their age; what counts is
that the same ones pass with the plugin. `--checkout`, or DJANGO_HELPDESK_CHECKOUT, takes those of
a source checkout instead: of the installed version, best.

Run: python own_suite.py --junit FILE [--plugin] [--checkout DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
FEWEST = 150
"""Fewer tests than this, and something kept the suite from running."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--junit", type=Path, required=True)
    parser.add_argument("--plugin", action="store_true", help="install, attach and classify")
    parser.add_argument("--checkout", type=Path, default=os.environ.get("DJANGO_HELPDESK_CHECKOUT"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if arguments.checkout:
            package = "tests"
            shutil.copytree(Path(arguments.checkout) / package, scratch / package)
        else:
            package = "helpdesk.tests"
            _unpack(_download(), scratch)
        return _run(scratch, package, arguments.junit.resolve(), plugin=arguments.plugin)


def _download() -> Path:
    """Return the wheel that holds the tests, from this environment's own folder or from PyPI."""
    target = Path(sys.prefix) / "host-suite"
    if not list(target.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run(
            [*command, "--only-binary=:all:", "-r", HERE / "suite.txt", "-d", target], check=True
        )
    (wheel,) = target.glob("*.whl")
    return wheel


def _unpack(wheel: Path, scratch: Path) -> None:
    """Unpack the tests alone, and let the installed host pass for the package around them."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("helpdesk/tests/")]
        archive.extractall(scratch, names)
    (scratch / "helpdesk" / "__init__.py").touch()
    # pytest would otherwise insist on that empty file being the package.
    os.environ["PY_IGNORE_IMPORTMISMATCH"] = "1"

    import helpdesk

    helpdesk.__path__.append(str(scratch / "helpdesk"))


def _run(scratch: Path, package: str, junit: Path, *, plugin: bool) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.suite"
    os.environ["HOST_SUITE_URLS"] = f"{package}.urls"
    sys.path.append(str(HERE.parent))
    counters: list[Any] = [RunTests()]
    if plugin:
        os.environ["HOST_SUITE_PLUGIN"] = "1"
        counters.append(Predictions())

    import helpdesk

    if "site-packages" not in helpdesk.__file__:
        raise SystemExit(f"{helpdesk.__file__} is not the installed django-helpdesk.")
    (scratch / "pytest.ini").write_text("[pytest]\n")
    options = ["-q", "--tb=no", "--no-summary", "--continue-on-collection-errors"]
    options += ["-p", "no:cacheprovider", f"--junitxml={junit}"]
    os.chdir(scratch)
    pytest.main([*options, str(scratch.joinpath(*package.split(".")))], plugins=counters)
    for counter in counters:
        print(counter)
    return int(not all(counter.suffices for counter in counters))


class RunTests:
    """Counts the tests that were run."""

    def __init__(self) -> None:
        self.count = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.count += report.when == "call"

    @property
    def suffices(self) -> bool:
        return self.count >= FEWEST

    def __str__(self) -> str:
        return f"{self.count} tests were run; {FEWEST} would do."


class Predictions:
    """Lets the toy model serve in each test database, and counts what it predicted."""

    def __init__(self) -> None:
        self.count = 0

    def pytest_collection(self) -> None:
        from django.apps import apps
        from django.db.models.signals import post_migrate, post_save

        from ticket_priority.models import Prediction

        post_migrate.connect(self.activate, sender=apps.get_app_config("ticket_priority"))
        # The public signal is sent after the commit, to which these tests do not come.
        post_save.connect(self.note, sender=Prediction)

    def activate(self, **kwargs: Any) -> None:
        from toy_model import activate_toy

        activate_toy()

    def note(self, instance: Any, created: bool, **kwargs: Any) -> None:
        self.count += created and instance.state == instance.State.APPLIED

    @property
    def suffices(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        return f"{self.count} predictions were made and applied."


if __name__ == "__main__":
    sys.exit(main())
