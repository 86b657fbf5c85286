"""The kill switch: classification is switched off and on in every process, without a deploy.

While it is off, tickets are saved and stay pending; people go on deciding.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from ticket_priority.conf import get_settings
from ticket_priority.models import SwitchChange, plugin_database


@dataclass(frozen=True, slots=True)
class SwitchState:
    """Whether tickets are classified: `on` requires `enabled`, the settings' `ENABLED`.

    `since` and `reason` describe the last change; None and empty where there was none.
    """

    on: bool
    enabled: bool
    since: datetime | None = None
    reason: str = ""


def read() -> SwitchState:
    """Read the settings and the last change, in one query."""
    newest = SwitchChange.objects.first()
    enabled = get_settings().enabled
    if newest is None:
        return SwitchState(enabled, enabled)
    return SwitchState(enabled and newest.is_on, enabled, newest.created_at, newest.reason)


def is_on() -> bool:
    """Say whether tickets are classified, in one query at most."""
    return get_settings().enabled and read().on


def turn(*, on: bool, user: Any = None, reason: str = "") -> SwitchChange | None:
    """Switch on or off from the next classification on; return None where nothing changes.

    `user` is the person who switches, None for a command.
    """
    using = plugin_database()
    with transaction.atomic(using=using):
        changes = SwitchChange.objects.using(using)
        # A simultaneous second change must wait, and then find nothing to do.
        newest = changes.select_for_update().first()
        if on == (newest is None or newest.is_on):
            return None
        return changes.create(is_on=on, user=user, reason=reason)
