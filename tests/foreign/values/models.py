"""Ticket models whose table, or whose own rules, refuse the high priority."""

from __future__ import annotations

from enum import Enum
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import models

from ticket_priority.fields import PriorityField
from ticket_priority.sources import registry


class Level(models.Model):
    """The host's table of priorities."""

    code = models.CharField(max_length=10, unique=True)
    is_current = models.BooleanField(default=True)

    def __str__(self) -> str:
        return self.code


class Ticket(models.Model):
    body = models.TextField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.body


class Numbered(Ticket):
    priority = models.SmallIntegerField(null=True)

    class Meta:
        abstract = True


class Plain(Numbered):
    """Takes every value."""


class ByKey(Ticket):
    priority = models.ForeignKey(Level, on_delete=models.PROTECT, null=True)


class ByCode(Ticket):
    priority = models.ForeignKey(Level, on_delete=models.PROTECT, null=True, to_field="code")


class ByCurrent(Ticket):
    priority = models.ForeignKey(
        Level, on_delete=models.PROTECT, null=True, limit_choices_to={"is_current": True}
    )


class OneEach(Ticket):
    priority = models.OneToOneField(Level, on_delete=models.PROTECT, null=True)


class Checked(Numbered):
    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(priority__lt=2), name="values_no_high")
        ]


class CheckedTogether(Numbered):
    assignee = models.CharField(max_length=10, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(priority=2, assignee=""), name="values_high_is_assigned"
            )
        ]


class ProxyOfChecked(Checked):
    class Meta:
        proxy = True


class ChildOfChecked(Checked):
    colour = models.CharField(max_length=10)


class UniqueTogether(Numbered):
    customer = models.IntegerField(default=1)

    class Meta:
        unique_together = [("customer", "priority")]


class OneHigh(Numbered):
    customer = models.IntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer"], condition=models.Q(priority=2), name="values_one_high"
            ),
            models.UniqueConstraint(fields=["customer", "priority"], name="values_one_each"),
        ]


class FewChoices(Ticket):
    priority = models.SmallIntegerField(null=True, choices=[(0, "later"), (1, "now")])


class Validated(Ticket):
    priority = models.SmallIntegerField(null=True, validators=[MaxValueValidator(1)])


class TooShort(Ticket):
    priority = models.CharField(max_length=3, blank=True)


class Ruled(Numbered):
    def clean(self) -> None:
        if self.priority == 2:
            raise ValidationError("Only a supervisor may do that.")


class NeverValid(Numbered):
    def clean(self) -> None:
        raise ValidationError("Nobody has filled in the form.")


class Computed(Ticket):
    level = models.IntegerField(default=0)
    priority = models.GeneratedField(
        expression=models.F("level"), output_field=models.IntegerField(), db_persist=True
    )


class NotNullField(Ticket):
    priority = PriorityField(null=False, text_fields=("body",))


class NotNull(Ticket):
    priority = models.SmallIntegerField()


class NotNullKey(Ticket):
    priority = models.ForeignKey(Level, on_delete=models.PROTECT)


class NotEmpty(Ticket):
    priority = models.CharField(max_length=10, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(priority__in=["low", "medium", "high"]), name="values_not_empty"
            )
        ]


class Urgency(Enum):
    UNKNOWN = "unknown"
    LATER = "later"
    SOON = "soon"
    NOW = "now"


class UrgencyField(models.CharField):  # type: ignore[type-arg]
    """Its values are members of an enumeration that is no text."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return self.to_python(value)

    def to_python(self, value: Any) -> Any:
        return None if value in (None, "") else Urgency(value)

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else Urgency(value).value


class Enumerated(Ticket):
    priority = UrgencyField(max_length=10, default=Urgency.UNKNOWN)


def normal_level() -> int:
    return int(Level.objects.get_or_create(code="normal")[0].pk)


class QueryingDefault(Ticket):
    priority = models.ForeignKey(Level, on_delete=models.PROTECT, default=normal_level)


def lost_level() -> int:
    return int(Level.objects.get(code="lost").pk)


class BrokenDefault(Ticket):
    priority = models.ForeignKey(Level, on_delete=models.PROTECT, default=lost_level)


class ClassDefault(Ticket):
    priority = models.SmallIntegerField(default=1)


class TwoPriorities(Ticket):
    urgency = PriorityField(text_fields=("body",))
    impact = PriorityField(text_fields=("body",))


class OwnChoices(Ticket):
    priority = PriorityField(text_fields=("body",), choices=[(0, "P3"), (1, "P2"), (2, "P1")])


# They are sources only while a test attaches them.
for _model in (NotNullField, TwoPriorities, OwnChoices):
    registry.unregister(_model)
