"""Prove the plugin on real helpdesks: each in an environment of its own, unmodified.

Run: make test-hosts, or .venv/bin/python tests/hosts/run.py [HOST ...]

For each host: its environment is made (the host from PyPI, this plugin as a wheel, no torch), the
journeys in its folder are run, and then the host's own test suite twice, without the plugin and
with it installed and classifying. A test that passes without it must pass with it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOSTS = tuple(sorted(path.parent.name for path in HERE.glob("*/own_suite.py")))
ENVIRONMENTS = ROOT / ".venv-hosts"
EXTRAS = "serving,api,queue"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"default: {', '.join(HOSTS)}")
    parser.add_argument("--journeys-only", action="store_true", help="leave the hosts' suites out")
    arguments = parser.parse_args()
    if unknown := set(arguments.hosts) - set(HOSTS):
        parser.error(f"no such host: {', '.join(sorted(unknown))}")
    environments = Environments(ENVIRONMENTS)
    failures = []
    for host in arguments.hosts or HOSTS:
        python, variables = environments.interpreter(host), environments.variables()
        print(f"-- {host}: journeys", flush=True)
        if _run([python, "-m", "pytest", "-q"], host, variables):
            failures.append(f"{host}: a journey failed")
        if not arguments.journeys_only:
            failures += [f"{host}: {line}" for line in _compare_suites(python, host, variables)]
    for failure in failures:
        print(f"FAILED {failure}")
    return int(bool(failures))


class Environments:
    """The hosts' virtual environments in `folder`, each with the plugin as it is now."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.model = self._toy_model()
        self.wheel = self._wheel()

    def interpreter(self, host: str) -> Path:
        """Install the host and the plugin's wheel; return the environment's Python."""
        directory = self.folder / host
        python = directory / "bin" / "python"
        requirements = HERE / host / "requirements.txt"
        wanted = requirements.read_text() + (ROOT / "pyproject.toml").read_text()
        stamp = directory / ".installed"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"-- {host}: installing", file=sys.stderr, flush=True)
            venv.create(directory, with_pip=True, clear=True)
            plugin = f"{self.wheel}[{EXTRAS}]"
            subprocess.run([*pip, "-r", requirements, plugin], check=True)
            stamp.write_text(wanted)
        subprocess.run([*pip, "--force-reinstall", "--no-deps", self.wheel], check=True)
        return python

    def variables(self) -> dict[str, str]:
        """Return what a host's process may see: nothing that leads it into this repository."""
        ours = ("PYTHONPATH", "DJANGO_SETTINGS_MODULE", "PYTEST_ADDOPTS")
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return {**kept, "TICKET_PRIORITY_TOY_MODEL": str(self.model), "HF_HUB_OFFLINE": "1"}

    def _toy_model(self) -> Path:
        sources = sorted(ROOT.glob("ticket_priority/ml/**/*.py"))
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
        model = self.folder / "models" / f"toy-{digest[:12]}"
        if not model.exists():
            print("-- training the toy model", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, HERE / "make_model.py", model], check=True)
        return model

    def _wheel(self) -> Path:
        target = self.folder / "wheel"
        for old in target.glob("*.whl"):
            old.unlink()
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--no-deps", "--wheel-dir", target, ROOT], check=True)
        (wheel,) = target.glob("*.whl")
        return wheel


def _compare_suites(python: Path, host: str, variables: dict[str, str]) -> Iterator[str]:
    """Run the host's own tests without and with the plugin; yield what got worse."""
    passes = {}
    for flags in ((), ("--plugin",)):
        name = f"{host}-{'with' if flags else 'without'}"
        report, log = (ENVIRONMENTS / f"{name}.{kind}" for kind in ("xml", "log"))
        print(f"-- {host}: its own tests {'with' if flags else 'without'} the plugin", flush=True)
        report.unlink(missing_ok=True)
        # To a file: some of a host's tests fail without us too, and would read like ours here.
        with log.open("wb") as output:
            command = [python, "own_suite.py", "--junit", report, *flags]
            status = _run(command, host, variables, output=output)
        if not report.exists():
            yield f"its own tests did not run (exit {status}): see {log}"
            return
        if flags and status:
            yield f"its own tests with the plugin ended with exit {status}: see {log}"
        passes[flags] = _passed(report)
    without, with_plugin = passes.values()
    print(f"   {len(without)} pass without the plugin, {len(with_plugin)} with it", flush=True)
    if not without:
        yield "none of its own tests passes without the plugin: there is nothing to compare"
    for name in sorted(without - with_plugin):
        yield f"{name} passes without the plugin and not with it"


def _passed(report: Path) -> set[str]:
    # Written a moment ago by our own run, so no stranger's XML is parsed here.
    cases = ElementTree.parse(report).iter("testcase")  # noqa: S314
    return {
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if not any(case.find(outcome) is not None for outcome in ("failure", "error", "skipped"))
    }


def _run(
    command: list[object], host: str, variables: dict[str, str], output: BinaryIO | None = None
) -> int:
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=HERE / host, env=variables, stdout=output, stderr=output, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
