"""A time limit for a training in this process. Standard library only."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from ticket_priority.exceptions import TrainingError, TrainingTimeoutError

REMINDER_SECONDS: Final = 30.0
"""The pause before the deadline's error is raised again, where something swallowed it."""

GRACE_SECONDS: Final = 180.0
"""How long after the deadline a process is ended that runs no Python code."""

_CHILD_SECONDS: Final = 5.0


class _TimeIsUp(BaseException):
    """Not an Exception, so that no `except Exception` on the way catches it."""


@contextmanager
def deadline(minutes: float | None) -> Iterator[None]:
    """Raise TrainingTimeoutError in the block after so many minutes; None: never.

    The children of this process are ended, and, if it leads a session, all processes of that. A
    process that hangs outside Python ends with exit status 1 three minutes later. Raises
    TrainingError in any thread but the main one.
    """
    if minutes is None:
        yield
        return
    if not _is_main_thread():
        raise TrainingError("A training with a time limit runs in a process's main thread only.")
    seconds = 60 * minutes
    before = signal.signal(signal.SIGALRM, _raise_time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds, REMINDER_SECONDS)
    # It runs in C without the interpreter's lock, so that nothing in Python can delay it.
    with suppress(AttributeError, ValueError, OSError):
        faulthandler.dump_traceback_later(
            seconds + GRACE_SECONDS, exit=True, file=sys.__stderr__ or sys.stderr
        )
    try:
        yield
    except _TimeIsUp:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _end_children()
        raise TrainingTimeoutError(
            f"The training took longer than {minutes:g} minutes and was ended. The active model "
            "is as it was. Raise the limit, or train a smaller model or for fewer epochs."
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that it can clean up.

    It changes nothing in any thread but the main one, the only one that signals reach.
    """
    if not _is_main_thread():
        yield
        return
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt
        # A forked child ends at once.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _raise_time_is_up(number: int, frame: FrameType | None) -> None:
    raise _TimeIsUp


def _end_children() -> None:
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(_CHILD_SECONDS)
        child.kill()
    if os.getsid(0) == os.getpid():
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
