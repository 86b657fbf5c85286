from __future__ import annotations

from rest_framework.throttling import UserRateThrottle

from ticket_priority.conf import get_settings


class ApiThrottle(UserRateThrottle):
    """API_THROTTLE_RATE requests a user, or an address where anonymous users are let in.

    The host's DEFAULT_THROTTLE_RATES need not know the scope.
    """

    scope = "ticket_priority"

    def get_rate(self) -> str | None:
        return get_settings().api.throttle_rate
