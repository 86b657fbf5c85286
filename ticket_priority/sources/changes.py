"""A change of a ticket's priority, as hosts report it and are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from django.db import models


@dataclass(frozen=True, slots=True)
class PriorityChange:
    """A change of a ticket's host value, `before` and `after` in the column's own type.

    `user` is the person who decided, None for a prediction or where that is unknown. A change is
    `incidental` when the person may not have noticed it, as from a form that posts every field, and
    `at_creation` when the ticket's own INSERT wrote it.
    """

    before: Any
    after: Any
    user: Any = None
    reason: str = ""
    via: str = ""
    incidental: bool = False
    at_creation: bool = False


class DecisionRecorder(Protocol):
    """Stores a person's decision that the host has already written, as an Override."""

    def __call__(self, instance: models.Model, change: PriorityChange) -> None:
        """Store the decision behind a change of the ticket `instance`."""
