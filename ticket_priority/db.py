"""Transactions, retry on deadlock, and reading a table in pages."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from django.db import OperationalError, connections, transaction
from django.db.models import Model, QuerySet
from django.db.transaction import TransactionManagementError

T = TypeVar("T")

ATTEMPTS: Final = 5
LONGEST_PAUSE_SECONDS: Final = 0.05

SAVE_SECONDS: Final = 5.0
"""How long the save of a host's ticket retries to store our rows."""


def needs_rollback(using: str) -> bool:
    """Say whether what is open there cannot be committed any more, whatever its owner does.

    A deadlock on MariaDB, a disk that is full, a connection that breaks take more with them than
    the savepoint around our statement. Who keeps such an error to themselves lets Django roll back
    without a word, and the host tell a customer that a ticket was saved.
    """
    return connections[using].needs_rollback and is_open(using)


def is_open(using: str) -> bool:
    """Say whether statements there wait for a commit, be it one that the host makes by hand."""
    connection = connections[using]
    return connection.in_atomic_block or not connection.get_autocommit()


def reopen(using: str) -> None:
    """Have the next query there open a new connection, unless it is one of a transaction."""
    if not is_open(using):
        connections[using].close()


def after_commit(function: Callable[[], object], *, using: str) -> None:
    """Call a function, which must not raise, after the commit; now where nothing is open.

    Where the host commits by hand (`AUTOCOMMIT` is False) nobody hears of it, so it is called now.
    """
    try:
        transaction.on_commit(function, using=using, robust=True)
    except TransactionManagementError:
        function()


def retry_on_deadlock(step: Callable[[], T], *, using: str, seconds: float = math.inf) -> T:
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


def pages_by_key(
    rows: QuerySet[Any, T],
    size: int,
    *,
    key: str = "pk",
    limit: int | None = None,
    until_empty: bool = False,
) -> Iterator[list[T]]:
    """Yield the rows in lists of at most `size`, in the order of their keys; one query for each.

    `key` names a unique column, or the one whose distinct values `rows` holds. At most `limit`
    rows are read in all. A short page is the last one, unless `until_empty`: then rows that are
    added meanwhile are read too. A cursor is no alternative: MySQL and connection poolers read its
    whole result at once.
    """
    rows = rows.order_by(key)
    following, left = rows, math.inf if limit is None else limit
    while page := list(following[: (most := int(min(size, left)))]):
        yield page
        if len(page) < most and not until_empty:
            return
        last: Any = page[-1]
        last = getattr(last, key) if isinstance(last, Model) else last
        following = rows.filter(**{f"{key}__gt": last})
        left -= len(page)


def _may_pass(error: OperationalError) -> bool:
    """Whether another try may go well. SQLite says the same of a lock and of a missing table."""
    name = getattr(error.__cause__, "sqlite_errorname", "SQLITE_BUSY")
    return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
