"""Mark a folder while it is being filled, so that what a killed process left can be found.

The operating system frees the mark's lock when the process dies. Where there are no such locks, as
on a mounted bucket, nothing is found. Standard library only.
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
"""The name, or the end of the name, of the file that is locked while a folder is filled."""


@contextmanager
def in_use(mark: Path) -> Iterator[None]:
    """Keep and lock a mark, in a folder or beside it, while the block runs.

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
    """Yield the marks whose process has died, and delete each afterwards."""
    for mark in marks:
        # A lock that is held and a mark that is gone raise OSError too.
        with suppress(OSError), mark.open("r+") as file:
            if fcntl is None:
                return
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield mark
            mark.unlink(missing_ok=True)
