"""Odd managers, inheritance, tables and companions."""

from __future__ import annotations

from typing import Any

from django.db import models
from simple_history.models import HistoricalRecords

from tests.foreign.models.base import Basis, Ticket
from ticket_priority.fields import PriorityField


class OpenTickets(models.Manager):  # type: ignore[type-arg]
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(is_closed=False)


class HidingManager(Ticket):
    """The default manager shows open tickets only."""

    is_closed = models.BooleanField(default=True)

    objects = OpenTickets()


class SoftDelete(Ticket):
    """A deleted ticket is a closed one."""

    is_closed = models.BooleanField(default=False)

    objects = OpenTickets()
    everything = models.Manager()

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        self.is_closed = True
        self.save(update_fields=["is_closed"])


class Customer(models.Model):
    name = models.CharField(max_length=20)

    def __str__(self) -> str:
        return self.name


class WithCustomers(models.Manager):  # type: ignore[type-arg]
    def get_queryset(self) -> Any:
        return super().get_queryset().select_related("customer")


class JoiningBaseManager(Ticket):
    """Every read joins a table that need not have a row."""

    customer = models.ForeignKey(Customer, null=True, blank=True, on_delete=models.SET_NULL)

    objects = WithCustomers()

    class Meta:
        base_manager_name = "objects"


class Proxy(Basis):
    class Meta:
        proxy = True


class ChildOfBasis(Basis):
    """Its priority is a column of its parent's table."""

    room = models.CharField(max_length=20, blank=True)


class Parent(Ticket):
    """The source, whose tickets are children."""


class Child(Parent):
    room = models.CharField(max_length=20, blank=True)


class PriorityMixin(models.Model):
    priority = PriorityField(text_fields=("body",))

    class Meta:
        abstract = True


class FromAbstract(PriorityMixin):
    """The PriorityField is inherited."""

    body = models.TextField()

    def __str__(self) -> str:
        return self.body


class WithHistory(models.Model):
    """django-simple-history copies each column into a second table."""

    body = models.TextField()
    priority = PriorityField(text_fields=("body",))
    # An app without migrations is built before the users' table.
    history = HistoricalRecords(user_db_constraint=False)

    def __str__(self) -> str:
        return self.body


class OddNames(Ticket):
    """Table and column bear names that SQL must quote."""

    priority = models.SmallIntegerField(null=True, blank=True, db_column="Order by")

    class Meta:
        db_table = "foreign select"


class Unmanaged(Ticket):
    """Somebody else's table."""

    class Meta:
        managed = False
        db_table = "foreign_basis"


class Dated(Ticket):
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)
