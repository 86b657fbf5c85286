"""A ticket model with a UUID key and no priority of its own until a test registers it."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models


class Case(models.Model):
    key = models.UUIDField(primary_key=True, default=uuid.uuid4)
    body = models.TextField()
    urgency = models.PositiveSmallIntegerField(null=True)
    reported_on = models.DateField(null=True)
    # An app without migrations is built before the users' table, so no constraint can name that.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, db_constraint=False
    )

    def __str__(self) -> str:
        return self.body


class Event(models.Model):
    """The host's own record of a change of urgency."""

    case = models.ForeignKey(Case, on_delete=models.CASCADE, related_name="events")
    before = models.PositiveSmallIntegerField(null=True)
    after = models.PositiveSmallIntegerField(null=True)
    who = models.CharField(max_length=50)
    via = models.CharField(max_length=20)
    reason = models.TextField()

    def __str__(self) -> str:
        return f"{self.before} -> {self.after}"


class Escalation(Case):
    """Its key is its parent's."""

    def __str__(self) -> str:
        return self.body


def own_cases(cases: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    return cases.filter(owner=user)
