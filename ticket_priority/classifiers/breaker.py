"""A circuit breaker: a model that keeps failing is not asked for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from django.db import Error

from ticket_priority.conf import get_settings
from ticket_priority.exceptions import BreakerOpenError
from ticket_priority.signals import breaker_changed

logger = logging.getLogger(__name__)


class BreakerState(StrEnum):
    """closed: the model is asked. open: it isn't. half_open: one caller tries it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts a model's failures in a row. Threads may share it.

    It belongs to one loaded model in one process: another version begins with a closed one.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._changed_at = 0.0

    def state(self) -> BreakerState:
        """Return the state that applies to the next caller."""
        with self._lock:
            if self._state == BreakerState.OPEN and self._has_rested():
                return BreakerState.HALF_OPEN
            return self._state

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Ask the model in this context; any error but a database's counts as its failure.

        Raises BreakerOpenError while the breaker is open, or another caller tries the model.
        """
        trial = self._begin()
        # A database's error, or the end of the process, says nothing about the model.
        failed: bool | None = None
        try:
            yield
            failed = False
        except Error:
            raise
        except Exception:
            failed = True
            raise
        finally:
            self._end(trial, failed)

    def trip(self) -> None:
        """Open the breaker at once: the model is known to fail."""
        with self._changing():
            if self._state != BreakerState.OPEN:
                self._open("it fails at every text")

    def _begin(self) -> float | None:
        """Return when the trial of a half-open breaker began; None while it is closed."""
        with self._changing():
            if self._state == BreakerState.CLOSED:
                return None
            # Also true of a half-open breaker whose trial never returned: the next caller tries.
            if not self._has_rested():
                raise BreakerOpenError("The model kept failing, so it is not asked for a while.")
            self._change(BreakerState.HALF_OPEN)
            logger.info("Model version %s is tried after a pause", self._name)
            return self._changed_at

    def _end(self, trial: float | None, failed: bool | None) -> None:
        with self._changing():
            if trial is None and self._state == BreakerState.CLOSED and failed is not None:
                self._failures = self._failures + 1 if failed else 0
                if self._failures >= get_settings().serving.breaker_failures:
                    self._open(f"it failed {self._failures} times in a row")
            elif self._state != BreakerState.HALF_OPEN or trial != self._changed_at:
                # The state has changed since this attempt began.
                return
            elif failed is None:
                # The next caller may try at once.
                self._state, self._changed_at = BreakerState.OPEN, float("-inf")
            elif failed:
                self._open("it failed when it was tried")
            else:
                self._failures = 0
                self._change(BreakerState.CLOSED)
                logger.warning("Model version %s works again", self._name)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock; send the signal after its release, as receivers may ask for the state."""
        with self._lock:
            before = self._state
            yield
            after = self._state
        if after != before:
            breaker_changed.send_robust(sender=type(self), version=self._name, state=after)

    def _open(self, why: str) -> None:
        self._change(BreakerState.OPEN)
        seconds = get_settings().serving.breaker_seconds
        logger.error("Model version %s is not asked for %g s: %s", self._name, seconds, why)

    def _change(self, state: BreakerState) -> None:
        self._state, self._changed_at = state, time.monotonic()

    def _has_rested(self) -> bool:
        return time.monotonic() - self._changed_at >= get_settings().serving.breaker_seconds
