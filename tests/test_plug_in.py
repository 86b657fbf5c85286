"""`docs/plug-in.md`, followed to the letter: each walk in an empty folder of its own.

What the guide may hold, and what is done with it:

- A ```python block under the line "`path`:" is that file; under "Add to `path`:" it is appended.
- A ```console block holds commands after `$ `, each with the lines that its output must have, in
  their order. They run in a shell. `runserver` and `qcluster` run on until the section ends.
- A ```pycon block is typed into `manage.py shell`, and must answer as it says.
- "Sign in as `name`, with the password `word`:" does so, and each "- <http://127.0.0.1:8000/...>"
  below it is opened, and must show what stands in **bold**.

In what is promised, `...` stands for anything. Whatever else is in a fence fails the test.

Three things are not to the letter. `pip install` is checked to name an extra that there is, and
not run: the environment has it all, and the plugin comes from the wheel of this checkout, so that
the demo's package is not in reach. The server takes a free port. The base model is a tiny encoder
that knows a few words.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings

from ticket_priority.ml.types import ArtifactFile

pytestmark = pytest.mark.sqlite

GUIDE = Path(settings.BASE_DIR) / "docs" / "plug-in.md"
SERVER = "http://127.0.0.1:8000"
WALKS = ("A", "B", "C")

WHOLE_FILE = re.compile(r"`([^`]+)`:")
FRAGMENT = re.compile(r"Add to `([^`]+)`:")
SIGN_IN = re.compile(r"Sign in as `(\w+)`, with the password `(\w+)`:")
PAGE = re.compile(rf"- <{re.escape(SERVER)}(/[^>]*)> (.*)")
PIP = re.compile(r'pip install "django-ticket-priority\[([\w,]+)\]"')
STAYS = re.compile(r"python manage\.py (runserver|qcluster)")

SHELL = """
import doctest, sys
session = doctest.DocTestParser().get_doctest(sys.stdin.read(), {}, "guide", None, 0)
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
runner.run(session)
sys.exit(runner.failures or not runner.tries)
"""


@dataclass(frozen=True)
class Block:
    """A fence: what kind it is, the line that stands over it, and what it holds."""

    kind: str
    label: str
    text: str


@dataclass
class Walk:
    """A walk's sections, each a list of blocks and of the lines between them."""

    sections: list[list[Block | str]] = field(default_factory=list)


def read_guide() -> dict[str, Walk]:
    """Return the walks by their letter; what stands before and after them has no fences."""
    walks: dict[str, Walk] = {}
    letter, label, fence = "", "", None
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        if fence is not None:
            if line == "```":
                assert letter, f"a fence outside the walks: {fence.text}"
                walks[letter].sections[-1].append(fence)
                fence, label = None, ""
            else:
                fence = Block(fence.kind, fence.label, f"{fence.text}{line}\n")
        elif line.startswith("```"):
            fence = Block(line.removeprefix("```"), label, "")
        elif line.startswith("## "):
            found = re.match(r"## ([A-Z])\. ", line)
            letter = found[1] if found else ""
            if letter:
                walks[letter] = Walk([[]])
        elif letter and line.startswith("### "):
            walks[letter].sections.append([])
        elif line:
            label = line
            if letter:
                walks[letter].sections[-1].append(line)
    assert fence is None, "a fence that is not closed"
    return walks


class Reader:
    """Somebody who does what the guide says, in a folder."""

    def __init__(self, folder: Path, plugin: Path, encoder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.browser = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar()),
        )
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DJANGO_", "HELPDESK_", "PYTHON"))
        } | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(plugin),
            "PYTHONUTF8": "1",
            "PRIORITY_BASE_MODEL": str(encoder),
        }

    def follow(self, walk: Walk) -> None:
        for section in walk.sections:
            try:
                for step in section:
                    self.read(step) if isinstance(step, str) else self.do(step)
            finally:
                self.stop()

    def do(self, block: Block) -> None:
        if block.kind == "python":
            self.write(block)
        elif block.kind == "console":
            for command, promised in _commands(block.text):
                self.run(command, promised)
        elif block.kind == "pycon":
            self.type(block.text)
        else:
            pytest.fail(f"nobody knows what to do with a {block.kind!r} block: {block.text}")

    def write(self, block: Block) -> None:
        whole, fragment = WHOLE_FILE.fullmatch(block.label), FRAGMENT.fullmatch(block.label)
        assert whole or fragment, f"which file? {block.label!r} stands over: {block.text}"
        if whole:
            path = self.folder / whole[1]
            path.write_text(block.text, encoding="utf-8")
        elif fragment:
            path = self.folder / fragment[1]
            path.write_text(f"{path.read_text()}\n{block.text}", encoding="utf-8")

    def run(self, command: str, promised: list[str]) -> None:
        if command.startswith("pip "):
            _check_extras(command)
        elif stays := STAYS.fullmatch(command):
            assert not promised, f"{command} says nothing before it ends"
            self.start(stays[1])
        else:
            done = self.call(["bash", "-euo", "pipefail", "-c", command])
            assert done.returncode == 0, f"{command}\n{done.stdout}"
            _check_promises(command, done.stdout, promised)

    def type(self, session: str) -> None:
        done = self.call([sys.executable, "manage.py", "shell", "-c", SHELL], typed=session)
        assert done.returncode == 0, f"{session}\n{done.stdout}"

    def call(self, command: list[str], *, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=180,
            check=False,
        )

    def start(self, name: str) -> None:
        address = [f"127.0.0.1:{self.port}", "--noreload"] if name == "runserver" else []
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", name, *address],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(process)
        if name == "runserver":
            _wait_for(self.port, process)

    def stop(self) -> None:
        while self.running:
            process = self.running.pop()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def read(self, line: str) -> None:
        if found := SIGN_IN.fullmatch(line):
            self.sign_in(found[1], found[2])
        elif found := PAGE.fullmatch(line):
            page = self.open(found[1])
            for shown in re.findall(r"\*\*(.+?)\*\*", found[2]):
                assert shown in page, f"{found[1]} does not show {shown!r}"
        else:
            assert SERVER not in line, f"nobody opens the page in: {line}"

    def sign_in(self, name: str, password: str) -> None:
        form = self.open("/admin/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
        assert token is not None
        fields = {"username": name, "password": password, "csrfmiddlewaretoken": token[1]}
        assert "Log out" in self.open("/admin/login/?next=/admin/", fields)

    def open(self, path: str, fields: dict[str, str] | None = None) -> str:
        posted = urlencode(fields).encode() if fields else None
        address = f"http://127.0.0.1:{self.port}{path}"
        with self.browser.open(address, posted, timeout=30) as response:
            return str(response.read().decode())


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    command, promised = "", list[str]()
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, promised
            command, promised = line.removeprefix("$ "), []
        else:
            assert command, f"no command says {line!r}"
            promised.append(line)
    if command:
        yield command, promised


def _check_extras(command: str) -> None:
    found = PIP.fullmatch(command)
    assert found is not None, command
    project = tomllib.loads((Path(settings.BASE_DIR) / "pyproject.toml").read_text())["project"]
    assert set(found[1].split(",")) <= set(project["optional-dependencies"]), command


def _check_promises(command: str, output: str, promised: list[str]) -> None:
    lines = iter(output.splitlines())
    for promise in promised:
        pattern = ".*".join(re.escape(part) for part in promise.strip().split("..."))
        said = any(re.fullmatch(pattern, line.strip()) for line in lines)
        assert said, f"{command} does not say {promise!r}, but:\n{output}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    pytest.fail("the server does not listen")


@pytest.fixture(scope="session")
def plugin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel of this checkout, without what it requires, into a folder."""
    folder = tmp_path_factory.mktemp("plugin")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, toy_run: Any) -> Path:
    """Return a base model that brings what it knows, as one from the hub does.

    From random weights the guide's 96 tickets would teach it nothing, and the gate would say so.
    """
    from tests.ml.conftest import write_tiny_encoder

    folder = write_tiny_encoder(tmp_path_factory.mktemp("encoder"))
    shutil.copy(toy_run.artifact_dir / ArtifactFile.WEIGHTS, folder)
    return folder


def test_the_guide_has_these_walks() -> None:
    assert tuple(read_guide()) == WALKS


@pytest.mark.parametrize(
    "block",
    [
        Block("bash", "", "ls\n"),
        Block("python", "Like this:", "pass\n"),
        Block("console", "", "$ echo one\ntwo\n"),
        Block("console", "", "$ echo one; false\n"),
        Block("console", "", "two\n"),
        Block("console", "", "$ pip install django-ticket-priority\n"),
        Block("console", "", '$ pip install "django-ticket-priority[unheard-of]"\n'),
        Block("console", "", "$ python manage.py runserver\nStarting\n"),
    ],
    ids=lambda block: block.text.strip(),
)
def test_a_block_that_is_not_understood_or_not_true_is_a_failure(
    block: Block, tmp_path: Path
) -> None:
    reader = Reader(tmp_path, tmp_path, tmp_path)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        reader.do(block)


def test_a_session_must_answer_as_it_says(tmp_path: Path) -> None:
    reader = Reader(tmp_path, tmp_path, tmp_path)
    reader.do(Block("console", "", "$ django-admin startproject config .\n"))
    reader.do(Block("pycon", "", ">>> 1 + 1\n2\n"))
    for session in (">>> 1 + 1\n3\n", ">>> nobody\n", "1 + 1\n"):
        with pytest.raises(AssertionError):
            reader.do(Block("pycon", "", session))


@pytest.mark.parametrize("letter", WALKS)
def test_a_walk_leads_where_it_says(
    letter: str, tmp_path: Path, plugin: Path, encoder: Path
) -> None:
    reader = Reader(tmp_path, plugin, encoder)
    places = (
        "import ticket_priority, importlib.util;"
        "print(ticket_priority.__file__, importlib.util.find_spec('helpdesk'))"
    )
    found = reader.call([sys.executable, "-c", places]).stdout.split()
    assert found == [str(plugin / "ticket_priority" / "__init__.py"), "None"]
    reader.follow(read_guide()[letter])
