"""The page that Prometheus scrapes. Requires the token of METRICS or the view permission."""

from __future__ import annotations

import os
from typing import Final

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from ticket_priority.conf import get_settings
from ticket_priority.prometheus.collector import DatabaseCollector

PERMISSION: Final = "ticket_priority.view_prediction"
_CREDENTIALS: Final = (
    'Requires TICKET_PRIORITY["METRICS"]["TOKEN"] as a bearer token, or a user who may view '
    "predictions.\n"
)


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics; 401 or 403 without the token and the permission to view predictions.

    The token is TICKET_PRIORITY["METRICS"]["TOKEN"]. Raises Http404 where METRICS is not enabled.
    """
    if not get_settings().metrics.enabled:
        raise Http404
    user = getattr(request, "user", None)
    if not (_has_token(request) or (user is not None and user.has_perm(PERMISSION))):
        if user is not None and user.is_authenticated:
            return HttpResponse("You may not view predictions.\n", "text/plain", 403)
        headers = {"WWW-Authenticate": "Bearer"}
        return HttpResponse(_CREDENTIALS, "text/plain", 401, headers=headers)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(_registry()), content_type)


def _has_token(request: HttpRequest) -> bool:
    token = get_settings().metrics.token
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and constant_time_compare(given, token or "")


def _registry() -> CollectorRegistry:
    """Return the registry of this process, or of all that share `PROMETHEUS_MULTIPROC_DIR`."""
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(DatabaseCollector())
    return registry
