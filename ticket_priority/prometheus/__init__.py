"""Metrics for Prometheus, with the setting METRICS. Mount `ticket_priority.prometheus.urls`."""

from __future__ import annotations

import logging
from importlib.util import find_spec

if find_spec("prometheus_client") is None:
    raise ImportError(
        "ticket_priority.prometheus needs prometheus_client. "
        'Install it with: pip install "django-ticket-priority[prometheus]"'
    )

logger = logging.getLogger(__name__)


def connect() -> None:
    """Start to count in the registry of prometheus_client; a folder that is missing is logged."""
    try:
        from ticket_priority.prometheus import counters
    except OSError:
        logger.exception("Nothing is counted: PROMETHEUS_MULTIPROC_DIR is not a writable folder")
        return
    counters.connect()
