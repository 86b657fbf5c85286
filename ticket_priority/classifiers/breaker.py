"""A circuit breaker: a model that fails again and again is left alone for a while."""

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
    """Counts a model's failures in a row. It may be shared between threads.

    It belongs to one loaded model in one process: another version begins with a closed one.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._changed_at = 0.0

    def state(self) -> BreakerState:
        """Return what the next caller would meet."""
        with self._lock:
            if self._state == BreakerState.OPEN and self._has_rested():
                return BreakerState.HALF_OPEN
            return self._state

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Ask the model within; what is raised counts as its failure, but a database's error.

        Raises BreakerOpenError where the model is left alone, or another caller tries it.
        """
        trying = self._begin()
        try:
            yield
        except Error:
            self._give_back(trying)
            raise
        except Exception:
            self._fail(trying)
            raise
        except BaseException:
            # The process is told to end, which says nothing of the model.
            self._give_back(trying)
            raise
        self._succeed(trying)

    def trip(self) -> None:
        """Open it at once: the model is known to fail."""
        with self._changing():
            if self._state != BreakerState.OPEN:
                self._open("it fails at every text")

    def _begin(self) -> float | None:
        """Return when the one try of an open breaker began; None while it is closed."""
        with self._changing():
            if self._state == BreakerState.CLOSED:
                return None
            # A try that never came back must not be the last.
            if not self._has_rested():
                raise BreakerOpenError("The model failed again and again, and is left alone.")
            self._change(BreakerState.HALF_OPEN)
            logger.info("Model version %s is tried again", self._name)
            return self._changed_at

    def _fail(self, trying: float | None) -> None:
        with self._changing():
            if trying is None and self._state == BreakerState.CLOSED:
                self._failures += 1
                if self._failures >= get_settings().serving.breaker_failures:
                    self._open(f"it failed {self._failures} times in a row")
            elif self._is_current(trying):
                self._open("it failed again")

    def _succeed(self, trying: float | None) -> None:
        with self._changing():
            if trying is None and self._state == BreakerState.CLOSED:
                self._failures = 0
            elif self._is_current(trying):
                self._failures = 0
                self._change(BreakerState.CLOSED)
                logger.warning("Model version %s answers again", self._name)

    def _give_back(self, trying: float | None) -> None:
        with self._changing():
            if self._is_current(trying):
                self._state, self._changed_at = BreakerState.OPEN, float("-inf")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock; tell of a change of state once it is free, as receivers may want it."""
        with self._lock:
            before = self._state
            yield
            after = self._state
        if after != before:
            breaker_changed.send_robust(sender=type(self), version=self._name, state=after)

    def _is_current(self, trying: float | None) -> bool:
        return self._state == BreakerState.HALF_OPEN and trying == self._changed_at

    def _open(self, why: str) -> None:
        self._change(BreakerState.OPEN)
        seconds = get_settings().serving.breaker_seconds
        logger.error("Model version %s is left alone for %g s: %s", self._name, seconds, why)

    def _change(self, state: BreakerState) -> None:
        self._state, self._changed_at = state, time.monotonic()

    def _has_rested(self) -> bool:
        return time.monotonic() - self._changed_at >= get_settings().serving.breaker_seconds
