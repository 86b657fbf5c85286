"""Errors beside a host's save are logged; they must not undo the save."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import transaction

from ticket_priority.db import is_open, needs_rollback
from ticket_priority.logs import redacted_traceback

logger = logging.getLogger(__name__)


@contextmanager
def contain_errors(
    using: str, message: str, *args: Any, level: int = logging.ERROR
) -> Iterator[None]:
    """Log an error in this context, and go on after it.

    Raises only what makes the transaction impossible to commit, see `db.needs_rollback`.
    """
    try:
        yield
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.log(level, f"{message}: %s", *args, redacted_traceback(error))


def savepoint(using: str) -> AbstractContextManager[Any]:
    """Open a savepoint where a transaction is open, which a database error would break."""
    return transaction.atomic(using=using) if is_open(using) else nullcontext()
