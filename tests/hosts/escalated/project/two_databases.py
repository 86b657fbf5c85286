"""The host's tables in a database of their own, as its setting DATABASE and its router allow."""

from __future__ import annotations

import os

from project.settings import *  # noqa: F403
from project.settings import DATABASES, ESCALATED

DATABASES["support"] = {
    **DATABASES["default"],
    "NAME": os.environ["HOST_SUPPORT"],
    # The host's foreign keys to content types and users point into the other database.
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA foreign_keys = OFF"},
}
DATABASE_ROUTERS = ["escalated.routers.EscalatedRouter"]
ESCALATED = {**ESCALATED, "DATABASE": "support"}
