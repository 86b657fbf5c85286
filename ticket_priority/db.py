"""Transactions, functions after the commit, retry on deadlock, and reading a table in pages."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final, TypeVar

from django.db import OperationalError, connections, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model, Q, QuerySet
from django.db.transaction import TransactionManagementError
from django.utils import timezone

T = TypeVar("T")

ATTEMPTS: Final = 5
LONGEST_PAUSE_SECONDS: Final = 0.05

SAVE_SECONDS: Final = 5.0
"""How long the save of a host's ticket retries storing the plugin's rows."""


def needs_rollback(using: str) -> bool:
    """Say whether the open transaction can no longer be committed.

    A deadlock on MariaDB, a full disk or a broken connection loses more than the savepoint around
    a statement. Such an error must be raised: otherwise Django rolls back silently, and the host
    reports a ticket as saved that is not.
    """
    return connections[using].needs_rollback and is_open(using)


def is_open(using: str) -> bool:
    """Say whether statements wait for a commit, including one that the host makes by hand."""
    connection = connections[using]
    return connection.in_atomic_block or not connection.get_autocommit()


def reopen(using: str) -> None:
    """Close the connection outside a transaction, so that the next query opens a new one."""
    if not is_open(using):
        connections[using].close()


def identity_of(using: str) -> str:
    """Return a text that no other database has, nor another schema, nor a copy elsewhere.

    It is made of where the database is, and of when the plugin's first migration was applied.
    """
    connection = connections[using]
    recorder = MigrationRecorder(connection)
    applied = None
    if recorder.has_table():
        ours = recorder.migration_qs.filter(app="ticket_priority").order_by("pk")
        applied = ours.values_list("applied", flat=True).first()
    where = [str(connection.settings_dict.get(key)) for key in ("ENGINE", "HOST", "PORT", "NAME")]
    parts = (*where, getattr(connection, "schema_name", ""), applied and applied.isoformat())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def after_commit(function: Callable[[], object], *, using: str) -> None:
    """Call a function, which must not raise, after the commit; at once outside a transaction.

    Also at once where the host commits by hand (`AUTOCOMMIT` is False): Django has no hook there.
    """
    try:
        transaction.on_commit(function, using=using, robust=True)
    except TransactionManagementError:
        function()


def retry_on_deadlock(step: Callable[[], T], *, using: str, seconds: float = math.inf) -> T:
    """Run a step that is its own transaction, several times while it meets a deadlock or lock.

    Databases end a deadlock by aborting one of the two transactions. Inside another transaction
    the step runs once, as the deadlock aborts that one too. No attempt begins after `seconds`.
    Raises the last OperationalError.
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


def unclaimed(column: str, seconds: float) -> Q:
    """Match rows without a claim, or with one that is older, or lies as far in the future.

    The latter was made while a clock was ahead, and would not expire before that time.
    """
    now, valid = timezone.now(), timedelta(seconds=seconds)
    overdue = Q(**{f"{column}__lt": now - valid}) | Q(**{f"{column}__gt": now + valid})
    return Q(**{f"{column}__isnull": True}) | overdue


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
    """Say whether a retry may succeed. SQLite uses one class for locks and missing tables."""
    name = getattr(error.__cause__, "sqlite_errorname", "SQLITE_BUSY")
    return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
