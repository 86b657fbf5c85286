from __future__ import annotations

from django.db import models


class Ticket(models.Model):
    """What the hosts have in common. An oddity changes a column, or adds one."""

    body = models.TextField()
    priority = models.SmallIntegerField(null=True, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.body


class Plain(Ticket):
    """No oddity. Every journey attaches it beside its own host."""


class Basis(Ticket):
    """What proxies, children and keys build on."""
