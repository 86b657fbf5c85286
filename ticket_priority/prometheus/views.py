"""The page that Prometheus scrapes. It is nobody's who does not show that it is theirs."""

from __future__ import annotations

import os

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from ticket_priority.conf import get_settings
from ticket_priority.prometheus.collector import DatabaseCollector

PERMISSION = "ticket_priority.view_prediction"


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics to who bears `METRICS_TOKEN`, or may view predictions; else 401 or 403.

    Raises Http404 without `METRICS`.
    """
    if not get_settings().metrics.enabled:
        raise Http404
    user = getattr(request, "user", None)
    if not (_bears_token(request) or (user is not None and user.has_perm(PERMISSION))):
        if user is not None and user.is_authenticated:
            return HttpResponse("You may not view predictions.\n", "text/plain", 403)
        headers = {"WWW-Authenticate": "Bearer"}
        return HttpResponse("Who are you?\n", "text/plain", 401, headers=headers)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(_registry()), content_type)


def _bears_token(request: HttpRequest) -> bool:
    token = get_settings().metrics.token
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and constant_time_compare(given, token or "")


def _registry() -> CollectorRegistry:
    """Return what this process counts, or what all do that share `PROMETHEUS_MULTIPROC_DIR`."""
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(DatabaseCollector())
    return registry
