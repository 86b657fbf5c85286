"""Use case: classification is switched off and on, in every process at once and without a deploy.

Switched off, tickets are saved as ever and wait as pending; people's decisions go on.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction

from ticket_priority.conf import get_settings
from ticket_priority.models import SwitchChange, plugin_database


def is_on() -> bool:
    """Say whether tickets are classified: `ENABLED` in the settings, and the switch. One query."""
    return get_settings().enabled and SwitchChange.is_on_now()


def turn(*, on: bool, user: Any = None, reason: str = "") -> SwitchChange | None:
    """Switch on or off from the next classification on; return None where it was so already.

    `user` is who does it, None for a command.
    """
    using = plugin_database()
    with transaction.atomic(using=using):
        changes = SwitchChange.objects.using(using)
        # A second click must wait, and then find it done.
        newest = changes.select_for_update().first()
        if on == (newest is None or newest.is_on):
            return None
        return changes.create(is_on=on, user=user, reason=reason)
