"""What Prometheus may scrape. Counted with `METRICS`; mount `ticket_priority.prometheus.urls`."""

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
    """Count from now on, in prometheus_client's own registry. Never raises over a lost folder."""
    try:
        from ticket_priority.prometheus import counters
    except OSError:
        logger.exception("Nothing is counted: PROMETHEUS_MULTIPROC_DIR is no folder to write in")
        return
    counters.connect()
