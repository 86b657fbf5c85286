"""Ticket sources: where tickets live on a host's models."""

from __future__ import annotations

from ticket_priority.sources.base import TicketSource as TicketSource
from ticket_priority.sources.base import UserRows as UserRows
from ticket_priority.sources.base import is_column as is_column
from ticket_priority.sources.changes import DecisionRecorder as DecisionRecorder
from ticket_priority.sources.changes import PriorityChange as PriorityChange
from ticket_priority.sources.registry import all_sources as all_sources
from ticket_priority.sources.registry import find_source as find_source
from ticket_priority.sources.registry import find_sources as find_sources
from ticket_priority.sources.registry import get_source as get_source
from ticket_priority.sources.registry import register as register
from ticket_priority.sources.registry import subscribe as subscribe
from ticket_priority.sources.registry import unregister as unregister
