"""The settings of escalated-django's own suite, and the plugin on top of them."""

from __future__ import annotations

from toy_model import ARTIFACT

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "ticket_priority"]
TICKET_PRIORITY = {
    "SOURCES": {
        "escalated.Ticket": {"adapter": "ticket_priority.adapters.escalated.EscalatedSource"},
    },
    "ARTIFACT_ROOT": ARTIFACT.parent,
    "SERVING": {"DEADLINE_MS": 60_000, "THREADS": 1},
}
