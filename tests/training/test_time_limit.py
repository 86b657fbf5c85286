"""Real processes: what a deadline and a SIGTERM do to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from ticket_priority.exceptions import TrainingError, TrainingTimeoutError
from ticket_priority.training.time_limit import deadline, interruptible

SECOND = 1 / 60

START = """
import multiprocessing, subprocess, sys, time
from ticket_priority.training import time_limit
from ticket_priority.exceptions import TrainingTimeoutError
"""
WITH_CHILDREN = (
    START
    + """
if __name__ == "__main__":
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    forked.start()
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(forked.pid, started.pid, flush=True)
    try:
        with time_limit.deadline(1 / 60):
            time.sleep(600)
    except TrainingTimeoutError as error:
        started.wait()
        print(error, flush=True)
"""
)
UNREACHABLE = (
    START
    + """
time_limit.GRACE_SECONDS = 1.0
with time_limit.deadline(1 / 60):
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
"""
)
SWALLOWING = (
    START
    + """
time_limit.REMINDER_SECONDS = 0.5
try:
    with time_limit.deadline(1 / 60):
        try:
            time.sleep(600)
        except BaseException:
            pass
        time.sleep(600)
except TrainingTimeoutError:
    print("ended")
"""
)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_nothing_that_it_started_outlives_it() -> None:
    result = run(WITH_CHILDREN)
    assert result.returncode == 0, result.stderr
    pids, told = result.stdout.splitlines()
    assert "longer than 0.0166667 minutes" in told
    assert [pid for pid in map(int, pids.split()) if is_alive(pid)] == []


def test_a_process_that_cannot_be_reached_ends_all_the_same() -> None:
    result = run(UNREACHABLE)
    assert result.returncode == 1
    assert "Timeout" in result.stderr


def test_it_is_raised_again_where_it_was_swallowed() -> None:
    assert run(SWALLOWING).stdout.strip() == "ended"


def test_what_contains_errors_does_not_contain_it() -> None:
    with pytest.raises(TrainingTimeoutError), deadline(SECOND):
        try:
            time.sleep(600)
        except Exception:
            pytest.fail("an error on the way")


def test_who_is_in_time_hears_nothing() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with deadline(SECOND), deadline(None):
        pass
    time.sleep(1.2)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_sigterm_ends_it_like_ctrl_c() -> None:
    def terminate() -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    before: Any = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=terminate)
    with pytest.raises(KeyboardInterrupt), interruptible():
        thread.start()
        time.sleep(30)
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_is_reached_by_no_signal() -> None:
    found: list[object] = []

    def train() -> None:
        with interruptible(), deadline(None):
            found.append("trained")
        try:
            with deadline(SECOND):
                pass
        except TrainingError as error:
            found.append(str(error))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [
        "trained",
        "A training with a time limit runs in a process's main thread only.",
    ]
