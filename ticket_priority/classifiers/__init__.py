"""The classifiers of this process: loaded once, following the active model version."""

from __future__ import annotations

from ticket_priority.classifiers.active import (
    breaker_state,
    find_version,
    get_classifier,
    get_shadow_classifier,
    loaded_model_version,
    preload,
    release_shadow,
    store_load_error,
)
from ticket_priority.classifiers.breaker import Breaker, BreakerState
from ticket_priority.classifiers.loading import ActiveClassifier, build, load, rule_of
from ticket_priority.classifiers.slots import RETRY_SECONDS, reset

__all__ = [
    "RETRY_SECONDS",
    "ActiveClassifier",
    "Breaker",
    "BreakerState",
    "breaker_state",
    "build",
    "find_version",
    "get_classifier",
    "get_shadow_classifier",
    "load",
    "loaded_model_version",
    "preload",
    "release_shadow",
    "reset",
    "rule_of",
    "store_load_error",
]
