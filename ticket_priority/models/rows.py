"""Rows about tickets: found by content type and key, as a ticket may be of any model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, Self

from django.contrib.contenttypes.models import ContentType
from django.db import connections, models
from django.db.models.functions import Cast, Replace
from django.utils.translation import gettext_lazy as _

from ticket_priority.exceptions import SourceError
from ticket_priority.sources.registry import get_source


class TicketRowQuerySet(models.QuerySet[Any]):
    """Rows about a ticket, found by content type and primary key."""

    def for_instance(self, instance: models.Model) -> Self:
        return self.for_keys(type(instance), [instance.pk])

    def for_keys(self, model: type[models.Model], keys: Iterable[Any]) -> Self:
        return self.for_model(model).filter(object_id__in=[str(key) for key in keys])

    def for_model(self, model: type[models.Model]) -> Self:
        return self.filter(content_type=content_type_of(model))

    def ticket_keys(self, model: type[models.Model]) -> Collection[Any] | models.QuerySet[Any]:
        """Return the primary keys of a model's tickets among these rows, made for `pk__in`.

        They are a subquery where the database can turn the text that is kept here into the key's
        own type, and a list, read at once, where it cannot.
        """
        column = key_column(model)
        rows = self.for_model(model).order_by()
        if isinstance(column, models.CharField):
            return rows.values("object_id")
        key: models.Func
        if isinstance(column, models.IntegerField):
            key = Cast("object_id", models.BigIntegerField())
        elif not isinstance(column, models.UUIDField):
            texts = rows.values_list("object_id", flat=True).distinct()
            return [column.to_python(text) for text in texts]
        elif connections[self.db].features.has_native_uuid_field:
            key = Cast("object_id", models.UUIDField())
        else:
            # The column holds 32 hexadecimal digits, `str(pk)` has dashes too.
            key = Replace("object_id", models.Value("-"), models.Value(""))
        # A database may cast before it filters, and another model's keys need not be castable.
        ours = models.When(content_type=content_type_of(model), then=key)
        return rows.values_list(models.Case(ours), flat=True)


class TicketRow(models.Model):
    """A row about a ticket, of whatever model."""

    content_type = models.ForeignKey(
        ContentType, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    object_id = models.CharField(_("ticket"), max_length=64)

    class Meta:
        abstract = True


def key_column(model: type[models.Model]) -> models.Field[Any, Any]:
    """Return the column that holds a model's key: its primary key's, or its parent's."""
    column: models.Field[Any, Any] = model._meta.pk
    while isinstance(column, models.ForeignKey):
        column = column.target_field
    return column


def content_type_of(model: type[models.Model]) -> ContentType:
    """Return the content type under which a ticket's rows are kept: its source's model's."""
    with suppress(SourceError):
        model = get_source(model).model
    return ContentType.objects.get_for_model(model, for_concrete_model=True)
