"""The one training slot of an ARTIFACT_ROOT. The system frees it however its process dies."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from ticket_priority.exceptions import TrainingError, TrainingInProgressError

_NAME: Final = ".training.lock"
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 0.05


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold the slot; raises TrainingInProgressError, and TrainingError for a folder's fault."""
    path = root / _NAME
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise TrainingError(
            f"{root} cannot be written: {error.strerror}. Set "
            'TICKET_PRIORITY["ARTIFACT_ROOT"] to a folder this process may write.'
        ) from error
    with file:
        if not _take(file):
            raise TrainingInProgressError(
                f"Another training run holds {path}. Wait for it, or stop it."
            )
        yield


def _take(file: IO[str]) -> bool:
    for _attempt in range(_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        # It may be `is_held` that is looking.
        time.sleep(_PAUSE_SECONDS)
    return False


def is_held(root: Path) -> bool:
    """Say whether a training run holds the slot, without taking it."""
    try:
        with (root / _NAME).open() as file:
            # Shared: two that look at once do not take each other for a training run.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
