"""A change of a ticket's priority, and the function that records a person's decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


DecisionRecorder = Callable[[models.Model, PriorityChange], None]
"""Stores a person's decision about a ticket that the host has already written, as an Override."""
