"""Reads go to a replica, which takes no writes."""

from __future__ import annotations

from typing import Any

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

FOREIGN_PROJECT = "replica"
REPLICA = "replica"
REFUSE_WRITES = {
    "django.db.backends.sqlite3": {"init_command": "PRAGMA query_only=1;"},
    "django.db.backends.postgresql": {"options": "-c default_transaction_read_only=on"},
    "django.db.backends.mysql": {"init_command": "SET SESSION TRANSACTION READ ONLY"},
}
_primary = DATABASES["default"]
_options = {**_primary.get("OPTIONS", {}), **REFUSE_WRITES[_primary["ENGINE"]]}
_options.pop("transaction_mode", None)
DATABASES = {
    **DATABASES,
    REPLICA: {**_primary, "OPTIONS": _options, "TEST": {"MIRROR": "default"}},
}
DATABASE_ROUTERS = ["tests.foreign.projects.replica.ReplicaRouter"]


class ReplicaRouter:
    """Django's own example of a primary and its replica, for the tickets."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return REPLICA if model._meta.app_label == "foreign" else None

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, *rows: Any, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "default"
