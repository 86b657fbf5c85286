"""The people are no rows of Django's own user model, and have neither groups nor permissions."""

from __future__ import annotations

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

FOREIGN_PROJECT = "bare_user"
INSTALLED_APPS = [*INSTALLED_APPS, "tests.foreign.people"]
AUTH_USER_MODEL = "people.Person"
