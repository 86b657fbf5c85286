"""Work on rows that others want too: what a deadlock or a lock has broken is done again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.db import OperationalError

from ticket_priority.db import is_open

T = TypeVar("T")

ATTEMPTS: Final = 5
LONGEST_PAUSE_SECONDS: Final = 0.05

SAVE_SECONDS: Final = 5.0
"""How long a host's save goes on trying to store what belongs to it."""


def again(step: Callable[[], T], *, using: str, seconds: float = math.inf) -> T:
    """Do a step that is a transaction of its own; raises OperationalError when it goes on failing.

    Databases end a deadlock by giving up one of the two. Inside another transaction it is done
    once: that one is lost with it, and its owner's to repeat. After so many `seconds` no try is
    begun any more.
    """
    tries = 1 if is_open(using) else ATTEMPTS
    begun = time.monotonic()
    for attempt in range(1, tries):
        try:
            return step()
        except OperationalError as error:
            if not _may_pass(error) or time.monotonic() - begun >= seconds:
                raise
            time.sleep(random.uniform(0, attempt * LONGEST_PAUSE_SECONDS))  # noqa: S311
    return step()


def _may_pass(error: OperationalError) -> bool:
    """Whether another try may go well. SQLite says the same of a lock and of a missing table."""
    name = getattr(error.__cause__, "sqlite_errorname", "SQLITE_BUSY")
    return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
