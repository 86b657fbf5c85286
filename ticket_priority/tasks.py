"""Entry points for the queue. Arguments are strings; rows are fetched again."""

from __future__ import annotations

from ticket_priority.outbox import drain


def drain_predictions() -> int:
    """Classify every pending prediction; return how many were decided."""
    return drain()
