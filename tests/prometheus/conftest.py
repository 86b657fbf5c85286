"""A process that counts, with a classifier that the test controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.support.classifiers import FaultyClassifier
from ticket_priority import prometheus
from ticket_priority.classifiers import get_classifier
from ticket_priority.prometheus import counters
from ticket_priority.signals import (
    breaker_changed,
    priority_missing,
    priority_overridden,
    priority_predicted,
)
from ticket_priority.starter.install import install_linear


@pytest.fixture
def counting(configure: Callable[..., None]) -> Iterator[None]:
    configure(METRICS={"ENABLED": True})
    prometheus.connect()
    yield
    for signal in (priority_predicted, priority_missing, priority_overridden, breaker_changed):
        assert signal.disconnect(dispatch_uid="ticket_priority.prometheus")
    with suppress(KeyError):
        REGISTRY.unregister(counters.DATABASE)


@pytest.fixture
def faulty(
    db: None, artifact_root: Path, fresh_classifier: None, configure: Callable[..., None]
) -> Iterator[type[FaultyClassifier]]:
    """Serve by a classifier that says "high", or has the fault that the test gives it."""
    configure(SERVING={"CLASSIFIERS": {"linear": "tests.support.classifiers.FaultyClassifier"}})
    install_linear().activate()
    get_classifier()
    FaultyClassifier.fault = None
    yield FaultyClassifier
    FaultyClassifier.fault = None


@pytest.fixture
def grown() -> Callable[..., float]:
    """Return a function that says by how much a counter has grown since the test last asked."""
    seen: dict[tuple[object, ...], float] = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in (counters.PREDICTIONS, counters.LATENCY, counters.OVERRIDES)
        for family in metric.collect()
        for sample in family.samples
    }

    def grown(name: str, **labels: str) -> float:
        key = (name, *sorted(labels.items()))
        now = REGISTRY.get_sample_value(name, labels) or 0
        before, seen[key] = seen.get(key, 0), now
        return now - before

    return grown
