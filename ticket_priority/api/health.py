"""Whether a model can serve, found out without loading one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.db import Error

from ticket_priority import __version__
from ticket_priority.classifiers import BreakerState, breaker_state, loaded_model_version
from ticket_priority.conf import get_settings
from ticket_priority.ml.artifacts import store as artifacts
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import kill_switch as switch
from ticket_priority.queues import django_q as queue
from ticket_priority.sources.registry import all_sources

HEADLINE: Final = ("n", "accuracy", "macro_f1", "weighted_kappa", "calibration_error")


@dataclass(frozen=True, slots=True)
class Health:
    """ok: the active model serves, or will at the next request.

    degraded: an older one serves, or this process leaves the model alone after it failed.
    """

    status: str
    model_loaded: bool
    active_model: str | None
    breaker: str = BreakerState.CLOSED


def check_health() -> Health:
    """Look at this process's memory, one row and one file name. Never raises."""
    loaded = loaded_model_version()
    breaker = breaker_state()
    try:
        active = ModelVersion.objects.active()
    except Error:
        active = None
    if active is None:
        return Health("unavailable", loaded is not None, None)
    if loaded is not None and breaker != BreakerState.CLOSED:
        return Health("degraded", True, active.name, breaker)
    if loaded is not None and loaded.pk == active.pk:
        return Health("ok", True, active.name)
    if not active.load_error and _is_published(active):
        return Health("ok", loaded is not None, active.name)
    return Health("unavailable" if loaded is None else "degraded", loaded is not None, active.name)


def describe_service() -> dict[str, Any]:
    """Return what runs here, in the shape of `ServiceInfoSerializer`."""
    options = get_settings()
    active = ModelVersion.objects.active()
    return {
        "version": __version__,
        "enabled": switch.is_on(),
        "mode": options.mode,
        "queue": queue.is_installed(),
        "max_texts": options.api.max_texts,
        "model_loaded": loaded_model_version() is not None,
        "model": None if active is None else _describe(active),
        "sources": [
            {"source": source.label, "mode": source.effective_mode} for source in all_sources()
        ],
    }


def _describe(version: ModelVersion) -> dict[str, Any]:
    figures = version.metrics.get("model", {})
    return {
        "name": version.name,
        "kind": version.kind,
        "base_model": version.base_model,
        "created_at": version.created_at,
        "activated_at": version.activated_at,
        "metrics": {name: figures[name] for name in HEADLINE if name in figures},
    }


def _is_published(version: ModelVersion) -> bool:
    return artifacts.is_published(get_settings().artifact_root / version.directory)
