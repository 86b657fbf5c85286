"""Mark a folder while it is being filled, so that what a killed process left can be found.

A mark names its owner, so that nothing else is taken for one. The operating system frees its lock
when the process dies. Where there are no such locks, as on a mounted bucket, nothing is found.
Standard library only.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

MARK: Final = ".unfinished"
"""The name, or the end of the name, of the file that is locked while a folder is filled."""


def write(mark: Path, owner: str) -> None:
    """Write a mark that only its owner may act upon; raises OSError."""
    mark.write_bytes(_content(owner))


def bears(mark: Path, owner: str) -> bool:
    """Say whether a file is a mark of this owner; raises OSError."""
    # What is no file, such as a pipe, would be waited for.
    if not stat.S_ISREG(mark.lstat().st_mode):
        return False
    expected = _content(owner)
    with mark.open("rb") as file:
        return file.read(len(expected) + 1) == expected


@contextmanager
def in_use(mark: Path, owner: str = "") -> Iterator[None]:
    """Keep and lock a mark, in a folder or beside it, while the block runs.

    Raises OSError when it cannot be written.
    """
    with mark.open("wb") as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            file.write(_content(owner))
            file.flush()
            yield
        finally:
            mark.unlink(missing_ok=True)


def stale(marks: Iterable[Path], owner: str = "") -> Iterator[Path]:
    """Yield the owner's marks whose process has died, and delete each afterwards."""
    for mark in marks:
        # A lock that is held and a mark that is gone raise OSError too.
        with suppress(OSError):
            if fcntl is None or not bears(mark, owner):
                continue
            with mark.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield mark
                mark.unlink(missing_ok=True)


def _content(owner: str) -> bytes:
    return f"ticket_priority {owner}".encode()
