"""Gauges read from the database at each scrape, so they are the same in every process."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from django.db import Error
from django.db.models import Q
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ticket_priority.models import ModelVersion
from ticket_priority.predictions.kill_switch import is_on
from ticket_priority.reports import backlog

logger = logging.getLogger(__name__)


class DatabaseCollector(Collector):
    """Run three queries a scrape; leave the gauges out when the database does not answer."""

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering the collector queries no database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the backlog, the model versions and the kill switch."""
        try:
            found = [*_backlog(), *_versions(), _switch()]
        except Error:
            logger.exception("The database could not be asked for its metrics")
            return
        yield from found


def _backlog() -> Iterator[Metric]:
    found = backlog.read()
    pending = GaugeMetricFamily(
        "ticket_priority_pending", "Tickets that wait for a prediction.", labels=("reason",)
    )
    for reason, group in found.waiting.items():
        pending.add_metric((reason,), group.count)
    yield pending
    oldest = found.oldest_at
    yield GaugeMetricFamily(
        "ticket_priority_pending_oldest_seconds",
        "Seconds that the oldest of them has waited; 0 when none waits.",
        value=0 if oldest is None else (timezone.now() - oldest).total_seconds(),
    )
    yield GaugeMetricFamily(
        "ticket_priority_failed", "Tickets whose classification failed.", value=found.failed
    )


def _versions() -> Iterator[Metric]:
    chosen = ModelVersion.objects.filter(Q(is_active=True) | Q(is_shadow=True))
    versions = GaugeMetricFamily(
        "ticket_priority_model_version",
        "The versions in use, by role: active or shadow.",
        labels=("role", "version"),
    )
    errors = GaugeMetricFamily(
        "ticket_priority_load_error",
        "1 when the version of that role could not be loaded, or fails.",
        labels=("role",),
    )
    for name, is_active, error in chosen.values_list("name", "is_active", "load_error"):
        role = "active" if is_active else "shadow"
        versions.add_metric((role, name), 1)
        errors.add_metric((role,), bool(error))
    yield versions
    yield errors


def _switch() -> Metric:
    return GaugeMetricFamily(
        "ticket_priority_switched_on",
        "1 while tickets are classified, 0 while classification is switched off.",
        value=is_on(),
    )
