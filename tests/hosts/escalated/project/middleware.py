from __future__ import annotations

from typing import Any

from escalated.api_middleware import AuthenticateApiToken


class ApiToken(AuthenticateApiToken):
    """The host's token authentication, for its API alone."""

    def process_view(self, request: Any, *args: Any) -> Any:
        if request.path.startswith("/support/api/"):
            return super().process_view(request, *args)
        return None
