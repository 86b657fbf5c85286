"""The lock of an ARTIFACT_ROOT that one training at a time holds.

The system releases it however the process ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from ticket_priority.exceptions import TrainingError, TrainingInProgressError

_NAME: Final = ".training.lock"
_ATTEMPTS: Final = 3
_PAUSE_SECONDS: Final = 0.05


@contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold the lock; raises TrainingInProgressError, or TrainingError where none can be had."""
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
        try:
            is_taken = _take(file)
        except ImportError as error:
            raise TrainingError(
                "Training needs filelock. Install what training needs with: "
                'pip install "django-ticket-priority[ml]", or [linear] for linear models alone'
            ) from error
        if not is_taken:
            raise TrainingInProgressError(
                f"Another training run holds {path}. Wait for it, or stop it."
            )
        yield


def is_held(root: Path) -> bool | None:
    """Say whether a training run holds the lock; None: unknown, as without filelock."""
    path = root / _NAME
    try:
        # NFS locks a file only for a process that has opened it for writing.
        with path.open("r+" if os.access(path, os.W_OK) else "r") as file:
            return not _take(file)
    except FileNotFoundError:
        return False
    except (ImportError, OSError):
        return None


def _take(file: IO[str]) -> bool:
    # Imported here, because the admin imports this module and needs Django alone. FileLock would
    # need the right to write.
    from filelock import lock_descriptor

    for attempt in range(_ATTEMPTS):
        if attempt:
            # It may be `is_held` that took it, for a moment.
            time.sleep(_PAUSE_SECONDS)
        if lock_descriptor(file.fileno(), blocking=False):
            return True
    return False
