"""The base of every endpoint, independent of the host's REST_FRAMEWORK settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import RequestDataTooBig
from django.utils.cache import add_never_cache_headers
from django.utils.module_loading import import_string
from drf_spectacular.openapi import AutoSchema
from rest_framework.metadata import SimpleMetadata
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView, exception_handler

from ticket_priority.api.errors import BodyTooLarge
from ticket_priority.api.parsers import StrictJSONParser
from ticket_priority.api.throttles import ApiThrottle
from ticket_priority.conf import get_settings

_TOKEN: Final = "rest_framework.authentication.TokenAuthentication"  # noqa: S105


class PluginView(APIView):
    """Answer in JSON, and in HTML where the host's renderers include the browsable API."""

    schema = AutoSchema()
    parser_classes = [StrictJSONParser]
    throttle_classes = [ApiThrottle]
    versioning_class = None
    metadata_class = SimpleMetadata
    content_negotiation_class = DefaultContentNegotiation

    def get_authenticators(self) -> list[Any]:
        paths = get_settings().api.authentication_classes
        has_tokens = apps.is_installed("rest_framework.authtoken")
        return [import_string(name)() for name in paths if has_tokens or name != _TOKEN]

    def get_permissions(self) -> Any:
        return [import_string(name)() for name in get_settings().api.permission_classes]

    def get_renderers(self) -> list[BaseRenderer]:
        chosen: Any = api_settings.DEFAULT_RENDERER_CLASSES
        if not apps.is_installed("rest_framework"):
            return [JSONRenderer()]
        browsable = (one for one in chosen if issubclass(one, BrowsableAPIRenderer))
        return [JSONRenderer(), *(renderer() for renderer in browsable)]

    def get_exception_handler(self) -> Callable[..., Any]:
        return exception_handler

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(
            BodyTooLarge() if isinstance(exc, RequestDataTooBig) else exc
        )

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> Response:
        finalized = super().finalize_response(request, response, *args, **kwargs)
        # A caching middleware would give the answer for one token to another.
        add_never_cache_headers(finalized)
        return finalized
