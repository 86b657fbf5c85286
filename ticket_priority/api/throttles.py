from __future__ import annotations

from rest_framework.throttling import UserRateThrottle

from ticket_priority.conf import get_settings


class ApiThrottle(UserRateThrottle):
    """Limit each user, or the address of an anonymous one, to THROTTLE_RATE of the group API.

    The host's DEFAULT_THROTTLE_RATES need no entry.
    """

    scope = "ticket_priority"

    def get_rate(self) -> str | None:
        return get_settings().api.throttle_rate
