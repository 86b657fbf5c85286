"""Tickets live in a database of their own."""

from __future__ import annotations

from typing import Any

from tests.foreign.projects.databases import beside
from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

FOREIGN_PROJECT = "two_databases"
DESK = "desk"
DATABASES = {**DATABASES, DESK: beside(DATABASES["default"], DESK)}
DATABASE_ROUTERS = ["tests.foreign.projects.two_databases.DeskRouter"]


class DeskRouter:
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return DESK if model._meta.app_label == "foreign" else "default"

    db_for_write = db_for_read

    def allow_relation(self, *rows: Any, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (db == DESK) == (app_label == "foreign")
