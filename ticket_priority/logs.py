"""Tracebacks for the log, without messages that may quote a ticket."""

from __future__ import annotations

import traceback
from typing import Final

from django.db import OperationalError, ProgrammingError

from ticket_priority.exceptions import TicketPriorityError

_SAFE: Final = (TicketPriorityError, OperationalError, ProgrammingError)
"""Errors whose messages mention models, tables and connections, but no ticket's text."""


def redacted_traceback(error: BaseException) -> str:
    """Return types and frames of an error and its causes, with safe messages only."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        message = f": {current}" if isinstance(current, _SAFE) else ""
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"{type(current).__name__}{message}\n{frames}".rstrip())
        hidden = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or hidden
    return "\nafter ".join(parts)
