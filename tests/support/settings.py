"""TICKET_PRIORITY with some keys changed, its groups key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ticket_priority.conf import GROUPS


def overlay(given: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return `given` with `changes`; a change of a group keeps the group's other keys."""
    merged = dict(given)
    for key, value in changes.items():
        is_group = key in GROUPS and isinstance(value, Mapping)
        merged[key] = {**merged.get(key, {}), **value} if is_group else value
    return merged
