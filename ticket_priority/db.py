"""The transaction that a host saves in: whether it is lost, and what is to follow its commit."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connections, transaction
from django.db.transaction import TransactionManagementError


def is_lost(using: str) -> bool:
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
