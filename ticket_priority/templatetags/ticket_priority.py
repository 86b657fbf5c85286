"""Show a priority in a template."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ticket_priority.priorities import Priority

register = template.Library()


@register.simple_tag
def priority_badge(priority: Any) -> SafeString:
    """Render a badge for a class id or None. Style it with `ticket_priority/badge.css`."""
    if priority is None or priority == "":
        return format_html('<span class="tp-badge tp-badge--unset">{}</span>', _("Unset"))
    found = Priority(int(priority))
    return format_html('<span class="tp-badge tp-badge--{}">{}</span>', found.slug, found.label)
