"""Prove the plugin on real helpdesks: each in an environment of its own, unmodified.

Run: make test-hosts, or .venv/bin/python tests/hosts/run.py [HOST ...]

For each host: its environment is made (the host from PyPI, this plugin as a wheel, no torch), the
journeys in its folder are run, and then the host's own test suite without the plugin, and with it
installed and classifying. A test that passes without it must pass with it. Which tests pass
without it is kept, by all that it depends on, under XDG_CACHE_HOME (else ~/.cache).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOSTS = tuple(sorted(path.parent.name for path in HERE.glob("*/own_suite.py")))
ENVIRONMENTS = ROOT / ".venv-hosts"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ticket_priority"
EXTRAS = ("serving", "api", "queue")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"default: {', '.join(HOSTS)}")
    parser.add_argument("--journeys-only", action="store_true", help="leave the hosts' suites out")
    parser.add_argument("--prepare", action="store_true", help="only make the environments")
    arguments = parser.parse_args()
    if unknown := set(arguments.hosts) - set(HOSTS):
        parser.error(f"no such host: {', '.join(sorted(unknown))}")
    hosts = arguments.hosts or HOSTS
    with ThreadPoolExecutor(len(hosts)) as together:
        list(together.map(prepare, hosts))
        if arguments.prepare:
            return 0
        plugin = Plugin(ENVIRONMENTS)
        test = partial(test_host, plugin=plugin, with_suite=not arguments.journeys_only)
        failures = [failure for found in together.map(test, hosts) for failure in found]
    for failure in failures:
        print(f"FAILED {failure}")
    return int(bool(failures))


def prepare(host: str) -> None:
    """Make a host's environment, with all that the plugin needs there, unless it is there."""
    directory = ENVIRONMENTS / host
    requirements = HERE / host / "requirements.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for extra in EXTRAS for name in project["optional-dependencies"][extra]]
    needed = [*project["dependencies"], *extras]
    wanted = f"{sys.version}\n{requirements.read_text()}\n{needed}"
    stamp = directory / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"-- {host}: installing", flush=True)
    venv.create(directory, with_pip=True, clear=True)
    subprocess.run(
        [*_pip(host), "install", "--no-compile", "-r", requirements, *needed], check=True
    )
    stamp.write_text(wanted)


def test_host(host: str, *, plugin: Plugin, with_suite: bool) -> list[str]:
    """Run a host's journeys and its own tests; return what failed."""
    python = plugin.install(host)
    journeys = subprocess.run(
        [python, "-m", "pytest", "-q"],
        cwd=HERE / host,
        env=plugin.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # Hosts run side by side: what one prints stays together.
    print(f"-- {host}: journeys\n{journeys.stdout}", end="", flush=True)
    failures = ["a journey failed"] if journeys.returncode else []
    if with_suite:
        failures += _compare_suites(python, host, plugin.variables)
    return [f"{host}: {failure}" for failure in failures]


class Plugin:
    """The plugin as it is now: its wheel, and a toy model to classify with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = self._toy_model()
        self.wheel = self._wheel()

    def install(self, host: str) -> Path:
        """Install the wheel for a host; return its environment's Python."""
        subprocess.run(
            [*_pip(host), "install", "--force-reinstall", "--no-deps", self.wheel], check=True
        )
        return _python(host)

    @property
    def variables(self) -> dict[str, str]:
        """What a host's process may see: nothing that leads it into this repository."""
        ours = ("PYTHONPATH", "DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS")
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return {**kept, "TICKET_PRIORITY_TOY_MODEL": str(self.model), "HF_HUB_OFFLINE": "1"}

    def _toy_model(self) -> Path:
        sources = ("tests/hosts/make_model.py", "tests/support/toy.py", "tests/ml/conftest.py")
        found = [*sorted(ROOT.glob("ticket_priority/ml/**/*.py")), *map(ROOT.joinpath, sources)]
        digest = _digest_of(found)
        model = self.folder / "models" / f"toy-{digest}"
        if not model.exists():
            print("-- training the toy model", flush=True)
            subprocess.run([sys.executable, HERE / "make_model.py", model], check=True)
        return model

    def _wheel(self) -> Path:
        target = self.folder / "wheel"
        for old in target.glob("*.whl"):
            old.unlink()
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        with tempfile.TemporaryDirectory() as folder:
            # A build leaves files beside its sources, and other tests build there too.
            copy = Path(folder)
            shutil.copytree(ROOT / "ticket_priority", copy / "ticket_priority")
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, copy)
            subprocess.run([*command, "--no-deps", "--wheel-dir", target, copy], check=True)
        (wheel,) = target.glob("*.whl")
        return wheel


def _compare_suites(python: Path, host: str, variables: dict[str, str]) -> Iterator[str]:
    """Run the host's own tests without and with the plugin; yield what got worse."""
    kept = _passing_without(host)
    if kept.exists():
        without = set(json.loads(kept.read_text()))
    else:
        report, _, problem = _run_suite(python, host, variables)
        if problem:
            yield problem
            return
        without = _passed(report)
    if not without:
        yield "none of its own tests passes without the plugin: there is nothing to compare"
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(sorted(without)))
    report, status, problem = _run_suite(python, host, variables, "--plugin")
    if problem:
        yield problem
        return
    if status:
        yield f"its own tests with the plugin ended with exit {status}: see {report.stem}.log"
    with_plugin = _passed(report)
    print(
        f"-- {host}: {len(without)} of its own tests pass without the plugin,"
        f" {len(with_plugin)} with it",
        flush=True,
    )
    for name in sorted(without - with_plugin):
        yield f"{name} passes without the plugin and not with it"


def _run_suite(
    python: Path, host: str, variables: dict[str, str], *flags: str
) -> tuple[Path, int, str]:
    """Run the host's own tests; return the report, the exit status and what kept them from it."""
    name = f"{host}-{'with' if flags else 'without'}"
    report, log = (ENVIRONMENTS / f"{name}.{kind}" for kind in ("xml", "log"))
    report.unlink(missing_ok=True)
    command = [python, "own_suite.py", "--junit", report, *flags]
    # To a file: some of a host's tests fail without us too, and would read like ours here.
    with log.open("wb") as output:
        status = _run(command, host, variables, output)
    problem = "" if report.exists() else f"its own tests did not run (exit {status}): see {log}"
    return report, status, problem


def _passing_without(host: str) -> Path:
    """Return the file that holds which tests pass without the plugin, in just such a place."""
    installed = subprocess.run(
        [*_pip(host), "freeze", "--all", "--exclude", "django-ticket-priority"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    checkout = os.environ.get("DJANGO_HELPDESK_CHECKOUT", "")
    files = [path for kind in ("py", "txt") for path in (HERE / host).rglob(f"*.{kind}")]
    if checkout:
        files += Path(checkout).rglob("*.py")
    digest = _digest_of(sorted(files), f"{sys.version}\n{installed}\n{checkout}")
    return CACHE / "host-suites" / f"{host}-{digest}.json"


def _digest_of(paths: list[Path], text: str = "") -> str:
    content = b"".join(path.read_bytes() for path in paths)
    return hashlib.sha256(text.encode() + content).hexdigest()[:12]


def _python(host: str) -> Path:
    return ENVIRONMENTS / host / "bin" / "python"


def _pip(host: str) -> list[str]:
    return [str(_python(host)), "-m", "pip", "--quiet", "--disable-pip-version-check"]


def _passed(report: Path) -> set[str]:
    # Written a moment ago by our own run, so no stranger's XML is parsed here.
    cases = ElementTree.parse(report).iter("testcase")  # noqa: S314
    return {
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if not any(case.find(outcome) is not None for outcome in ("failure", "error", "skipped"))
    }


def _run(command: list[object], host: str, variables: dict[str, str], output: BinaryIO) -> int:
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=HERE / host, env=variables, stdout=output, stderr=output, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
