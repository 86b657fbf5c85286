"""Whether a model can serve, without loading one, and a description of the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import Error

from ticket_priority import __version__
from ticket_priority.classifiers import (
    BreakerState,
    breaker_state,
    loaded_model_version,
    serving_version,
)
from ticket_priority.conf import get_settings
from ticket_priority.ml.artifacts.store import is_published
from ticket_priority.ml.evaluation.figures import FIGURES, Metrics
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import kill_switch
from ticket_priority.queues import has_workers
from ticket_priority.sources.registry import all_sources


@dataclass(frozen=True, slots=True)
class Health:
    """How a process stands with its model.

    `status` is "ok" where the active model serves, or will at the next request; "degraded" where
    an older one serves, or the circuit breaker is open; else "unavailable".
    """

    status: str
    model_loaded: bool
    active_model: str | None
    breaker: str = BreakerState.CLOSED


def check_health() -> Health:
    """Return the health of this process, from its memory, one row and one file. Never raises."""
    try:
        active = ModelVersion.objects.active()
        loaded = None if active is None else serving_version(active)
    except Error:
        active = None
    if active is None:
        return Health("unavailable", loaded_model_version() is not None, None)
    breaker = BreakerState.CLOSED if loaded is None else breaker_state(loaded)
    if breaker != BreakerState.CLOSED:
        return Health("degraded", True, active.name, breaker)
    status = "unavailable" if loaded is None else "degraded"
    folder = get_settings().artifact_root / active.directory
    if loaded == active or (not active.load_error and is_published(folder)):
        status = "ok"
    return Health(status, loaded is not None, active.name)


def describe_service() -> dict[str, Any]:
    """Return release, settings, active model and sources, for `ServiceInfoSerializer`."""
    options = get_settings()
    active = ModelVersion.objects.active()
    return {
        "version": __version__,
        "enabled": kill_switch.is_on(),
        "mode": options.mode,
        "queue": has_workers(),
        "max_texts": options.api.max_texts,
        "model_loaded": loaded_model_version() is not None,
        "model": None if active is None else _describe(active),
        "sources": [
            {"source": source.label, "mode": source.effective_mode} for source in all_sources()
        ],
    }


def _describe(version: ModelVersion) -> dict[str, Any]:
    model = Metrics.read(version.metrics).model
    figures = {"n": model.rows, **{name: model.figure(name) for name in FIGURES}}
    return {
        "name": version.name,
        "kind": version.kind,
        "base_model": version.base_model,
        "created_at": version.created_at,
        "activated_at": version.activated_at,
        "metrics": {name: value for name, value in figures.items() if value is not None},
    }
