"""The audit slice: new tickets, drawn by chance, whose predictions are held back.

Nobody sees what the model says of them until a person has set the priority, so how often the two
agree is an unbiased measure of the model at work, and the labels are nobody's echo.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from random import SystemRandom
from typing import Any, Final, TypeVar

from django.db import models

from ticket_priority.conf import get_settings
from ticket_priority.ml.numbers import is_number
from ticket_priority.models import Override, Prediction, plugin_database

Rows = TypeVar("Rows", bound="models.QuerySet[Prediction]")

MODE: Final = "audit"
"""The mode of a prediction about a ticket of the slice, from its creation on."""

MOST: Final = 0.5
"""A larger part of the tickets than this cannot be held back."""

# Nobody who opens a ticket can foresee or choose the draw.
_chance = SystemRandom()


def is_share(value: Any) -> bool:
    """Say whether a value may be AUDIT_SHARE."""
    return is_number(value) and 0 <= value <= MOST


def draw(mode: str) -> str:
    """Return the mode of a new ticket: by chance, in AUDIT_SHARE of the cases, the audit's."""
    share = get_settings().decisions.audit_share
    return MODE if is_share(share) and _chance.random() < share else mode


def audited_keys(model: type[models.Model], keys: Iterable[Any]) -> set[str]:
    """Return which of these tickets were drawn, by `str(pk)`."""
    rows = Prediction.objects.using(plugin_database()).for_keys(model, keys).filter(mode=MODE)
    return set(rows.values_list("object_id", flat=True))


def is_held_back(prediction: Prediction, priority: int | None) -> bool:
    """Say whether nobody may see a prediction, given the priority that its ticket has."""
    return prediction.reason == Prediction.Reason.AUDIT and priority is None


def shown(rows: Rows) -> Rows:
    """Leave out what is held back: the slice's predictions until a decision is recorded."""
    decided = Override.objects.filter(
        content_type=models.OuterRef("content_type"), object_id=models.OuterRef("object_id")
    )
    return rows.filter(
        ~models.Q(reason=Prediction.Reason.AUDIT) | models.Q(models.Exists(decided.order_by()))
    )


def blanked(prediction: Prediction) -> Prediction:
    """Return a prediction without what the model said."""
    blank = copy(prediction)
    blank.priority = blank.confidence = None
    blank.prob_low = blank.prob_medium = blank.prob_high = None
    return blank
