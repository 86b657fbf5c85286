"""Ticket sources: where tickets live on a host's models."""

from __future__ import annotations

from ticket_priority.sources.base import TicketSource, UserRows, is_column
from ticket_priority.sources.changes import DecisionRecorder, PriorityChange
from ticket_priority.sources.registry import (
    all_sources,
    find_source,
    find_sources,
    get_source,
    register,
    subscribe,
    unregister,
)

__all__ = [
    "DecisionRecorder",
    "PriorityChange",
    "TicketSource",
    "UserRows",
    "all_sources",
    "find_source",
    "find_sources",
    "get_source",
    "is_column",
    "register",
    "subscribe",
    "unregister",
]
