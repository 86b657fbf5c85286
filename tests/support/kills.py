"""Processes that are killed at one step of their work after the other."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from django.db import connection, connections

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_FILE_EVENTS: Final = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
_MOST_SECONDS: Final = 60


def killed_at_each_step(work: Callable[[], Any], *, below: Path | None = None) -> Iterator[str]:
    """Let forked processes begin the same work, and SIGKILL comes a step later for each.

    A step is a statement to the database, a commit, or a file or folder that is made, renamed or
    deleted `below` a folder. Yields the step at which a process died, just before it; ends when
    one has come through.
    """
    for number in itertools.count(1):
        step = _killed_at(number, work, below)
        if not step:
            return
        yield step


def finished(work: Callable[[], Any]) -> int:
    """Let a forked process do some work; return the signal that ended it, or 0."""
    connections.close_all()
    child = os.fork()
    if child == 0:
        _work(work)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "see what it printed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def kill_me(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_at(number: int, work: Callable[[], Any], below: Path | None) -> str:
    reader, writer = os.pipe()

    def work_until_then() -> None:
        _Steps(number, writer).watch(below)
        work()

    ended_by = finished(work_until_then)
    os.close(writer)
    with os.fdopen(reader) as said:
        step = said.read()
    assert ended_by == (signal.SIGKILL if step else 0), ended_by
    return step


def _work(work: Callable[[], Any]) -> None:
    """Do it in a child, and end that without what the tests registered for their own end."""
    code = 1
    try:
        signal.alarm(_MOST_SECONDS)
        work()
        connections.close_all()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class _Steps:
    """Counts the steps of this process, and kills it at one of them."""

    def __init__(self, number: int, writer: int) -> None:
        self.left = number
        self.writer = writer

    def take(self, step: str) -> None:
        self.left -= 1
        if not self.left:
            os.write(self.writer, step.encode())
            kill_me()

    def watch(self, below: Path | None) -> None:
        connection.execute_wrappers.append(self._before_statement)
        commit: Any = connection._commit

        def commit_counted() -> Any:
            self.take("COMMIT")
            return commit()

        connection._commit = commit_counted  # type: ignore[method-assign]
        if below is not None:
            self.below = str(below)
            sys.addaudithook(self._before_file)

    def _before_statement(
        self, execute: Any, sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        self.take(" ".join(sql.split())[:80])
        return execute(sql, params, many, context)

    def _before_file(self, event: str, values: tuple[Any, ...]) -> None:
        if event not in _FILE_EVENTS or not str(values[0]).startswith(self.below):
            return
        if event != "open" or int(values[2] or 0) & _WRITING:
            self.take(f"{event} {Path(str(values[0])).name}")
