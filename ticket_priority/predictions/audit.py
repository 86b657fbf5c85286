"""The audit slice: new tickets, drawn at random, whose predictions are held back.

Their predictions are hidden until a person has set the priority. So the share on which both agree
is an unbiased measure of the model in use, and the labels do not echo the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from random import SystemRandom
from typing import Any, Final

from django.db import models

from ticket_priority.conf import get_settings
from ticket_priority.ml.numbers import is_number
from ticket_priority.models import Prediction, plugin_database

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
    """Return which of these tickets belong to the slice, by `key_text`."""
    rows = Prediction.objects.using(plugin_database()).filter(mode=MODE)
    return rows.keys_among(model, keys)


def held_back(predictions: Iterable[Prediction]) -> set[Prediction]:
    """Return which of these nobody may see yet; takes a query where one is of the slice."""
    audited = {row for row in predictions if row.reason == Prediction.Reason.AUDIT}
    if not audited:
        return audited
    return audited.difference(Prediction.objects.filter(pk__in=[row.pk for row in audited]).shown())


def blanked(prediction: Prediction) -> Prediction:
    """Return a copy of a prediction without the model's answer."""
    blank = copy(prediction)
    blank.priority = blank.confidence = None
    blank.prob_low = blank.prob_medium = blank.prob_high = None
    return blank
