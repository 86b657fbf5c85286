"""Which predictions are pending, and how many have failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db.models import Count, Max, Min

from ticket_priority.models import Prediction, plugin_database

_State = Prediction.State
_OPEN: Final = (_State.PENDING, _State.FAILED)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Pending predictions of one reason; `newest_at`: when the last one came, or was tried."""

    count: int
    oldest_at: datetime
    newest_at: datetime


@dataclass(frozen=True, slots=True)
class Backlog:
    """Pending predictions by reason, and the failed ones."""

    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    failed: int = 0
    last_failed_at: datetime | None = None

    @property
    def count(self) -> int:
        """How many predictions are pending."""
        return sum(each.count for each in self.waiting.values())

    @property
    def oldest_at(self) -> datetime | None:
        """When the oldest pending one was created."""
        return min((each.oldest_at for each in self.waiting.values()), default=None)


def read() -> Backlog:
    """Count pending and failed predictions, in one query that uses the index on the state."""
    rows = Prediction.objects.using(plugin_database()).filter(state__in=_OPEN).order_by()
    groups = rows.values("state", "reason").annotate(
        count=Count("pk"),
        oldest_at=Min("created_at"),
        newest_at=Max("created_at"),
        tried_at=Max("claimed_at"),
        given_up_at=Max("decided_at"),
    )
    waiting: dict[str, Waiting] = {}
    failed: list[dict[str, Any]] = []
    for group in groups:
        if group["state"] == _State.FAILED:
            failed.append(group)
        else:
            newest_at = max(filter(None, (group["newest_at"], group["tried_at"])))
            waiting[group["reason"]] = Waiting(group["count"], group["oldest_at"], newest_at)
    return Backlog(
        dict(sorted(waiting.items())),
        sum(group["count"] for group in failed),
        max(filter(None, (group["given_up_at"] for group in failed)), default=None),
    )
