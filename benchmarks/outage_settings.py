"""The demo's settings for `outages.py`: a model that can be made to fail, or no plugin at all."""

from __future__ import annotations

import os

from helpdesk.settings import *  # noqa: F403
from helpdesk.settings import MIDDLEWARE, Q_CLUSTER, TICKET_PRIORITY

DEBUG = False
SECRET_KEY = "only for a benchmark"  # noqa: S105
ALLOWED_HOSTS = ["127.0.0.1"]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = False
if os.environ.get("OUTAGES_PLUGIN") == "0":
    MIDDLEWARE = ["benchmarks.outages.muted_middleware", *MIDDLEWARE]
TICKET_PRIORITY = {
    **TICKET_PRIORITY,
    # Short, so that a run shows many breakdowns and what comes after each.
    "SERVING": {
        "CLASSIFIERS": {"linear": "benchmarks.outages.UnreliableClassifier"},
        "BREAKER_SECONDS": 2,
    },
    "QUEUE": {"CLAIM_SECONDS": 15, "MAX_ATTEMPTS": 1000},
}
Q_CLUSTER = {**Q_CLUSTER, "workers": 2, "timeout": 30, "retry": 120, "max_attempts": 0}
