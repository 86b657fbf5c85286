"""Show a priority in a template."""

from __future__ import annotations

from django import template

from ticket_priority import badges

register = template.Library()

register.simple_tag(badges.priority_badge, name="priority_badge")
register.filter("percent", badges.percent)
