"""Calls with a time limit, made in a few threads of this process."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar, cast

from ticket_priority.exceptions import ModelOverloadedError, ModelTimeoutError

T = TypeVar("T")

THREADS: Final = 4
"""The most threads of a pool, and so the most calls that can hang."""

IDLE_SECONDS: Final = 60.0
"""How long a thread waits for a call before it ends."""

EXIT_SECONDS: Final = 5.0
"""How long a process that ends waits for the calls that run."""

_in_flight: set[Call[object]] = set()


class Call(Generic[T]):
    """A call that a thread makes, and its result. A result that comes late is thrown away."""

    def __init__(self, function: Callable[[], T], seconds: float) -> None:
        self.pid = os.getpid()
        self.is_given_up = False
        self._function: Callable[[], T] | None = function
        self._due_at = time.monotonic() + seconds
        self._done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has ended, or was given up before it ran."""
        return self._done.is_set()

    @property
    def is_overdue(self) -> bool:
        """Whether it still runs although its time is over."""
        return not self.is_done and time.monotonic() >= self._due_at

    def run(self) -> None:
        """Make the call, unless it was given up. Never raises."""
        function, self._function = self._function, None
        _in_flight.add(cast("Call[object]", self))
        try:
            if function is not None and not self.is_given_up:
                self._result = function()
        except BaseException as error:
            # The caller raises it; the thread has other calls to make.
            self._error = error
        finally:
            _in_flight.discard(cast("Call[object]", self))
            self._done.set()

    def wait(self) -> T:
        """Return the result; raises what the call raised, or ModelTimeoutError after its time."""
        if not self._done.wait(max(self._due_at - time.monotonic(), 0)):
            self.is_given_up = True
            raise ModelTimeoutError("The model took longer than DEADLINE_MS.")
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    def settle(self, seconds: float) -> None:
        """Wait until it has ended, at most so many seconds."""
        self._done.wait(seconds)


class Pool:
    """Daemon threads that make calls, started when they are needed.

    A forked child must make a pool of its own, since threads do not survive a fork.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._most = threads
        self._threads = 0
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[Call[object]] = SimpleQueue()
        self._unfinished: set[Call[object]] = set()

    def submit(self, function: Callable[[], T], seconds: float) -> Call[T]:
        """Start a call that may take so many seconds.

        Raises ModelOverloadedError where every thread is busy with a call that is overdue.
        """
        call = Call(function, seconds)
        entry = cast("Call[object]", call)
        with self._lock:
            if self._threads <= len(self._unfinished):
                if self._threads < self._most:
                    self._start_thread()
                elif sum(other.is_overdue for other in self._unfinished) >= self._most:
                    raise ModelOverloadedError("Every thread waits for a model that hangs.")
            self._unfinished.add(entry)
            self._waiting.put(entry)
        return call

    def call(self, function: Callable[[], T], seconds: float) -> T:
        """Make a call and wait for its result, at most so many seconds.

        Raises what it raises, ModelTimeoutError, or at once ModelOverloadedError.
        """
        return self.submit(function, seconds).wait()

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="ticket_priority", daemon=True).start()
        self._threads += 1

    def _work(self) -> None:
        while True:
            try:
                call = self._waiting.get(timeout=IDLE_SECONDS)
            except Empty:
                if self._may_leave():
                    return
                continue
            call.run()
            with self._lock:
                self._unfinished.discard(call)
            del call

    def _may_leave(self) -> bool:
        with self._lock:
            if not self._waiting.empty():
                return False
            self._threads -= 1
            return True


def _settle_in_flight() -> None:
    """Let calls end before the interpreter: C++ code that returns after that aborts the process."""
    until = time.monotonic() + EXIT_SECONDS
    for call in tuple(_in_flight):
        if call.pid == os.getpid():
            call.settle(max(until - time.monotonic(), 0))


atexit.register(_settle_in_flight)
