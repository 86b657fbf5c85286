"""Faults that are real: a connection that the server ends, a lock that another process holds."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from django.db import connection

from tests.support.services import run_on_server

Fault = Callable[[], Any]


@contextmanager
def before_statement(*words: str, fault: Fault, times: int = 1) -> Iterator[None]:
    """Have a fault come just before statements that hold all these words; so many times."""
    left = times

    def run(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left
        if left and all(word in sql for word in words):
            left -= 1
            fault()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(run):
        yield
    assert left < times, f"no statement held {words}"


def lose_connection() -> None:
    """End this test's connection as a server does that is restarted; on SQLite, close the file."""
    if connection.vendor == "postgresql":
        pid = connection.connection.info.backend_pid
        run_on_server("postgresql", f"SELECT pg_terminate_backend({pid})")
    elif connection.vendor == "mysql":
        run_on_server("mariadb", f"KILL {connection.connection.thread_id()}")
    else:
        connection.connection.close()


@contextmanager
def short_timeout(milliseconds: int = 10) -> Iterator[None]:
    """Let this test's connection wait for a lock of SQLite's only so long."""
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {milliseconds}")
    try:
        yield
    finally:
        connection.close()


@contextmanager
def write_lock() -> Iterator[None]:
    """Hold SQLite's one write lock in a connection of its own, as another process does."""
    path = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def write_lock_at(*words: str, tries: int = 1) -> Iterator[None]:
    """Hold the write lock from a statement with all these words on, while it is tried so often."""
    left = tries
    lock = ExitStack()

    def run(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left
        if not left or not all(word in sql for word in words):
            return execute(sql, params, many, context)
        if left == tries:
            lock.enter_context(write_lock())
        left -= 1
        try:
            return execute(sql, params, many, context)
        finally:
            if not left:
                lock.close()

    with lock, short_timeout(), connection.execute_wrapper(run):
        yield
    assert left < tries, f"no statement held {words}"


@contextmanager
def full_disk(free_bytes: int = 0) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes: a disk that is full, for each file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def full_database() -> Iterator[None]:
    """Give SQLite's file no page more than it has: "database or disk is full"."""
    with connection.cursor() as cursor:
        # What was deleted before has left pages that would be used first.
        cursor.execute("VACUUM")
        cursor.execute("PRAGMA page_count")
        (pages,) = cursor.fetchone()
        cursor.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        connection.close()
