"""The demo's settings for the tests: a database by environment, a queue that is not running."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from helpdesk.settings import *  # noqa: F403
from helpdesk.settings import DATABASES, INSTALLED_APPS, Q_CLUSTER, TICKET_PRIORITY
from tests.support.settings import overlay

TEST_DIR = Path(tempfile.mkdtemp(prefix="ticket-priority-tests-"))
DATABASES["default"].setdefault("TEST", {})
if os.environ.get("HELPDESK_DATABASE", "sqlite") == "sqlite":
    # A file, so that threads and other processes share it.
    DATABASES["default"]["TEST"]["NAME"] = str(TEST_DIR / "test.sqlite3")
HOSTS = [
    "simple_history",
    "reversion",
    "tests.uuid_host",
    "tests.foreign",
    "tests.foreign.values",
    "tests.foreign.keys",
    "tests.foreign.labels",
]
INSTALLED_APPS = [*INSTALLED_APPS, *HOSTS]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
TICKET_PRIORITY = overlay(
    TICKET_PRIORITY,
    ARTIFACT_ROOT=TEST_DIR / "models",
    OUTPUT_DIR=TEST_DIR / "outputs",
    # Other tests keep the machine busy: only those about the deadline have a short one.
    SERVING={"THREADS": 1, "DEADLINE_MS": 60_000},
)
Q_CLUSTER = {**Q_CLUSTER, "name": "ticket-priority-tests"}
