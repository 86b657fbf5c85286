"""Work on rows that others want too: what a deadlock or a lock has broken is done again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.db import OperationalError, connections

T = TypeVar("T")

ATTEMPTS: Final = 5
LONGEST_PAUSE_SECONDS: Final = 0.05


def again(step: Callable[[], T], *, using: str) -> T:
    """Do a step that is a transaction of its own; raises OperationalError when it goes on failing.

    Databases end a deadlock by giving up one of the two. Inside another transaction it is done
    once: that one is lost with it, and its owner's to repeat.
    """
    tries = 1 if connections[using].in_atomic_block else ATTEMPTS
    for attempt in range(1, tries):
        try:
            return step()
        except OperationalError:
            time.sleep(random.uniform(0, attempt * LONGEST_PAUSE_SECONDS))  # noqa: S311
    return step()
