"""Folders that a process fills: a lock, which dies with it, tells those it left unfinished.

Standard library only. Where there are no such locks, as on a mounted bucket, nothing is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

MARK: Final = ".unfinished"
"""What the file is called, or ends in, that is locked while a folder is being filled."""


@contextmanager
def in_use(mark: Path) -> Iterator[None]:
    """Keep a mark, in a folder or beside it, while the block runs.

    Raises OSError when it cannot be written.
    """
    with mark.open("w") as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)


def stale(marks: Iterable[Path]) -> Iterator[Path]:
    """Yield the marks whose process has died; each goes after that."""
    for mark in marks:
        # A lock that is held, and a mark that is gone by now, are OSErrors too.
        with suppress(OSError), mark.open("r+") as file:
            if fcntl is None:
                return
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield mark
            mark.unlink(missing_ok=True)
