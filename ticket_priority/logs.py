"""What may be logged of an error whose message may quote a ticket."""

from __future__ import annotations

import traceback
from typing import Final

from django.db import OperationalError, ProgrammingError

from ticket_priority.exceptions import TicketPriorityError

_DISCREET: Final = (TicketPriorityError, OperationalError, ProgrammingError)
"""Errors whose messages speak of models, tables and connections."""


def redacted_traceback(error: BaseException) -> str:
    """Return an error's type and frames, and its causes'; no message that may hold a text."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        said = f": {current}" if isinstance(current, _DISCREET) else ""
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"{type(current).__name__}{said}\n{frames}".rstrip())
        hidden = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or hidden
    return "\nafter ".join(parts)
