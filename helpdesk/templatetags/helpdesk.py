from __future__ import annotations

from datetime import datetime

from django import template
from django.utils.timesince import timesince

register = template.Library()


@register.filter
def percent_width(share: float | None) -> str:
    """Write a share of 1 as a CSS width, whatever the reader's decimal separator."""
    return f"{min(max(share or 0.0, 0.0), 1.0) * 100:.1f}%"


@register.filter
def age(moment: datetime) -> str:
    """Write how long ago a point in time was, by its largest unit."""
    return timesince(moment, depth=1)
