"""The audit slice: new tickets, drawn at random, whose predictions are held back.

Their predictions are hidden until a person has set the priority. So the share on which both agree
is an unbiased measure of the model in use, and the labels do not echo the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from random import SystemRandom
from typing import Any, Final, TypeVar

from django.db import connections, models

from ticket_priority.conf import get_settings
from ticket_priority.ml.numbers import is_number
from ticket_priority.models import Override, Prediction, plugin_database

Rows = TypeVar("Rows", bound="models.QuerySet[Prediction]")

MODE: Final = "audit"
"""The mode of predictions about tickets of the slice."""

MOST: Final = 0.5
"""The largest share of tickets that can be held back."""

# So that nobody who opens a ticket can predict the draw.
_chance = SystemRandom()


def is_share(value: Any) -> bool:
    """Say whether a value may be AUDIT_SHARE."""
    return is_number(value) and 0 <= value <= MOST


def draw(mode: str) -> str:
    """Return the mode of a new ticket: `MODE` in a random AUDIT_SHARE of cases, else `mode`."""
    share = get_settings().decisions.audit_share
    return MODE if is_share(share) and _chance.random() < share else mode


def audited_keys(model: type[models.Model], keys: Iterable[Any]) -> set[str]:
    """Return which of these tickets belong to the slice, by `str(pk)`."""
    rows = Prediction.objects.using(plugin_database()).filter(mode=MODE)
    return rows.keys_among(model, keys)


def is_held_back(prediction: Prediction, priority: int | None) -> bool:
    """Say whether a prediction is hidden, given the priority that its ticket has."""
    return prediction.reason == Prediction.Reason.AUDIT and priority is None


def shown(rows: Rows) -> Rows:
    """Exclude what is held back: the slice's predictions until a decision is recorded."""
    decided = models.Exists(
        Override.objects.order_by().filter(
            content_type=models.OuterRef("content_type"), object_id=models.OuterRef("object_id")
        )
    )
    if connections[rows.db].vendor == "mysql":
        return rows.filter(~models.Q(reason=Prediction.Reason.AUDIT) | models.Q(decided))
    # A join: for an OR, PostgreSQL plans to look at the overrides for each row.
    held_back = Prediction.objects.order_by().filter(
        ~decided, pk=models.OuterRef("pk"), reason=Prediction.Reason.AUDIT
    )
    return rows.filter(~models.Exists(held_back))


def blanked(prediction: Prediction) -> Prediction:
    """Return a copy of a prediction without the model's answer."""
    blank = copy(prediction)
    blank.priority = blank.confidence = None
    blank.prob_low = blank.prob_medium = blank.prob_high = None
    return blank
