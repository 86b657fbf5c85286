"""Odd priority columns, and odd text."""

from __future__ import annotations

from enum import Enum
from typing import Any

from django.db import models

from tests.foreign.models.base import Ticket
from ticket_priority.fields import PriorityField


class Level(models.Model):
    """The host's table of priorities."""

    name = models.CharField(max_length=20)

    def __str__(self) -> str:
        return self.name


def normal_level() -> int:
    """Return the key of the level that tickets begin with; it is made when it is missing."""
    return Level.objects.get_or_create(pk=9, name="Normal")[0].pk


def level_that_is_there() -> int:
    """Return the key of the level that tickets begin with; fails before somebody has made it."""
    return Level.objects.get(pk=9).pk


class ForeignKeyPriority(Ticket):
    priority = models.ForeignKey(Level, on_delete=models.PROTECT, null=True, blank=True)


class QueryingDefault(Ticket):
    priority = models.ForeignKey(Level, on_delete=models.PROTECT, default=normal_level)


class DemandingDefault(Ticket):
    priority = models.ForeignKey(Level, on_delete=models.PROTECT, default=level_that_is_there)


class Urgency(Enum):
    UNKNOWN = "unknown"
    LATER = "later"
    SOON = "soon"
    NOW = "now"

    def __str__(self) -> str:
        return self.value


class UrgencyField(models.CharField):
    """Its values are members of an enumeration that is no text."""

    def from_db_value(self, value: Any, expression: Any, using: Any) -> Any:
        return self.to_python(value)

    def to_python(self, value: Any) -> Any:
        if value in (None, ""):
            return None
        return value if isinstance(value, Urgency) else Urgency(value)

    def get_prep_value(self, value: Any) -> Any:
        return value.value if isinstance(value, Urgency) else value

    @property
    def validators(self) -> list[Any]:
        return []

    def value_to_string(self, obj: Any) -> str:
        return str(self.get_prep_value(self.value_from_object(obj)))


class EnumPriority(Ticket):
    priority = UrgencyField(max_length=10, null=True, blank=True)


class EnumDefault(Ticket):
    priority = UrgencyField(max_length=10, default=Urgency.UNKNOWN)


class TextChoices(Ticket):
    """The empty text means that nobody has decided."""

    priority = models.CharField(
        max_length=2, blank=True, choices=[("P1", "now"), ("P2", "soon"), ("P3", "some day")]
    )


class FewChoices(Ticket):
    """A class has no value among the choices."""

    priority = models.SmallIntegerField(
        null=True, blank=True, choices=[(0, "some day"), (1, "now")]
    )


class ConstrainedPriority(Ticket):
    """The database takes no value above 1."""

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(priority__lte=1), name="foreign_no_urgency")
        ]


class ConstrainedTogether(Ticket):
    """The database takes no high priority for a ticket of a guest."""

    is_guest = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(is_guest=False)
                | models.Q(priority__isnull=True)
                | models.Q(priority__lt=2),
                name="foreign_no_urgent_guest",
            )
        ]


class UniquePriority(Ticket):
    """One ticket at a time is urgent."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["priority"], condition=models.Q(priority=2), name="foreign_one_urgent"
            )
        ]


class NotNull(Ticket):
    priority = models.SmallIntegerField(default=1)


class NotNullWithoutDefault(Ticket):
    priority = PriorityField(null=False, text_fields=("body",))


def medium() -> int:
    return 1


class CallableDefault(Ticket):
    priority = models.SmallIntegerField(default=medium)


class DatabaseDefault(Ticket):
    priority = models.SmallIntegerField(db_default=1)


class TextMethods(Ticket):
    """A method and a property beside the columns."""

    def summary(self) -> str:
        return f"In short: {self.body}"

    @property
    def title(self) -> str:
        return self.body.upper()


class TwoPriorities(models.Model):
    """Urgency and impact, as ITIL has them."""

    body = models.TextField()
    urgency = PriorityField(text_fields=("body",))
    impact = PriorityField(text_fields=("body",))

    def __str__(self) -> str:
        return self.body
