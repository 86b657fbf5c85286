"""A priority and a confidence in HTML."""

from __future__ import annotations

from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ticket_priority.priorities import Priority


def priority_badge(priority: Any) -> SafeString:
    """Render a badge for a class id or None. Style it with `ticket_priority/badge.css`."""
    if priority is None or priority == "":
        return format_html('<span class="tp-badge tp-badge--unset">{}</span>', _("Unset"))
    found = Priority(int(priority))
    return format_html('<span class="tp-badge tp-badge--{}">{}</span>', found.slug, found.label)


def percent(share: float | None) -> str:
    """Format a share from 0 to 1 as a whole percentage; empty for None."""
    return "" if share is None else f"{share:.0%}"
