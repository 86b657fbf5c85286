"""A ticket with a history and versions; it is a source only while a test attaches it."""

from __future__ import annotations

from copy import deepcopy

import reversion
from django.db import models
from simple_history.models import HistoricalRecords

from ticket_priority.fields import PriorityField
from ticket_priority.sources import registry


class Described(models.Model):
    subject = models.CharField(max_length=200)
    body = models.TextField(blank=True)
    priority = PriorityField(text_fields=("subject", "body"))

    class Meta:
        abstract = True


class Numbered(Described):
    """Between the abstract model with the field and the table there is another abstract model."""

    number = models.IntegerField(default=0)

    class Meta:
        abstract = True


@reversion.register()
class Ticket(Numbered):
    history = HistoricalRecords(user_db_constraint=False)

    def __str__(self) -> str:
        return self.subject


class Archived(models.Model):
    """A table of former tickets, made of their fields."""

    subject = models.CharField(max_length=200)
    body = models.TextField()
    priority = deepcopy(Ticket._meta.get_field("priority"))

    def __str__(self) -> str:
        return self.subject


REGISTERED = [source for source in registry.all_sources() if source.label.startswith("labels.")]
"""The sources that these models have made."""

for _source in REGISTERED:
    registry.unregister(_source.model)
