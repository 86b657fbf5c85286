"""Counters of what each process does itself, driven by signals."""

from __future__ import annotations

from typing import Any, Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from ticket_priority import signals
from ticket_priority.classifiers import BreakerState, breaker_state
from ticket_priority.models import Override, Prediction
from ticket_priority.priorities import Priority
from ticket_priority.prometheus.collector import DatabaseCollector

PREDICTIONS: Final = Counter(
    "ticket_priority_predictions",
    "Predictions by the state they reached; pending: a ticket was saved without a prediction.",
    ("state", "reason", "mode", "priority"),
)
LATENCY: Final = Histogram(
    "ticket_priority_latency_seconds",
    "Time the model took for a ticket; in a batch, the ticket's share.",
    ("mode",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10),
)
OVERRIDES: Final = Counter(
    "ticket_priority_overrides",
    "Decisions of people; a confirmation has the same priority twice.",
    ("from_priority", "to_priority"),
)
BREAKER_OPEN: Final = Gauge(
    "ticket_priority_breaker_open",
    "Processes whose circuit breaker is open, since the model failed repeatedly.",
    multiprocess_mode="livesum",
)
DATABASE: Final = DatabaseCollector()


def connect() -> None:
    """Start to count; a second call changes nothing."""
    uid = "ticket_priority.prometheus"
    signals.priority_predicted.connect(count_prediction, dispatch_uid=uid)
    signals.priority_missing.connect(count_prediction, dispatch_uid=uid)
    signals.priority_overridden.connect(count_override, dispatch_uid=uid)
    signals.breaker_changed.connect(note_breaker, dispatch_uid=uid)
    REGISTRY.register(DATABASE)


def count_prediction(*, prediction: Prediction, **kwargs: Any) -> None:
    """Count a prediction, and observe its latency."""
    priority = _name(prediction.priority)
    PREDICTIONS.labels(prediction.state, prediction.reason, prediction.mode, priority).inc()
    if prediction.latency_ms is not None:
        LATENCY.labels(prediction.mode).observe(prediction.latency_ms / 1000)
        # Each version has a breaker of its own, and another version may serve now.
        note_breaker()


def count_override(*, override: Override, **kwargs: Any) -> None:
    """Count a person's decision."""
    OVERRIDES.labels(_name(override.from_priority), _name(override.to_priority)).inc()


def note_breaker(**kwargs: Any) -> None:
    """Record whether the circuit breaker of this process is open."""
    BREAKER_OPEN.set(breaker_state() != BreakerState.CLOSED)


def _name(priority: int | None) -> str:
    return "none" if priority is None else Priority(priority).slug
