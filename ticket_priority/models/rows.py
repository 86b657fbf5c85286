"""Rows about tickets, found by content type and key, as a ticket may be of any model."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

from django.contrib.contenttypes.models import ContentType
from django.db import connections, models
from django.db.models.functions import Cast, Replace
from django.utils.translation import gettext_lazy as _

from ticket_priority.exceptions import SourceError
from ticket_priority.sources import get_source
from ticket_priority.sources.keys import (
    LONGEST,
    is_plain,
    key_column,
    key_list,
    key_text,
    read_keys,
)


class TicketRowQuerySet(models.QuerySet[Any]):
    """Rows about a ticket, found by content type and primary key."""

    def for_instance(self, instance: models.Model) -> Self:
        """Keep the rows about this ticket."""
        return self.for_keys(type(instance), [instance.pk])

    def for_keys(self, model: type[models.Model], keys: Iterable[Any]) -> Self:
        """Keep the rows about the tickets of a model with these keys."""
        return self.for_model(model).filter(object_id__in=[key_text(model, key) for key in keys])

    def keys_among(self, model: type[models.Model], keys: Iterable[Any]) -> set[str]:
        """Return which of these tickets have a row here, by `key_text`."""
        return set(self.for_keys(model, keys).values_list("object_id", flat=True))

    def erase(self) -> int:
        """Delete these rows; return their number."""
        return self.delete()[0]

    def for_model(self, model: type[models.Model]) -> Self:
        """Keep the rows about a model's tickets."""
        return self.filter(content_type=content_type_of(model))

    def ticket_keys(self, model: type[models.Model], using: str | None = None) -> Any:
        """Return the primary keys of a model's tickets among these rows, for `pk__in`.

        A subquery where the database can convert the stored text to the key's type, else a list
        that is read at once: also where the tickets are in another database, `using`.
        """
        rows = self.for_model(model).order_by()
        key = _key_expression(key_column(model), self.db) if using in (None, self.db) else None
        if key is None:
            texts = rows.values_list("object_id", flat=True).distinct()
            return key_list(model, read_keys(model, texts, using))
        # A database may convert before it filters, which can fail for another model's keys.
        ours = models.When(content_type=content_type_of(model), then=key)
        return rows.values_list(models.Case(ours), flat=True)


class KeyField(models.CharField):  # type: ignore[type-arg]
    """A text that tells letter case apart, which MySQL's own collations do not."""

    def db_parameters(self, connection: Any) -> Any:
        """Name a collation where the database needs one."""
        collation = {"collation": "utf8mb4_bin"} if connection.vendor == "mysql" else {}
        return {**super().db_parameters(connection), **collation}


class TicketRow(models.Model):
    """A row about a ticket of any model."""

    content_type = models.ForeignKey(
        ContentType, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    object_id: models.CharField[str, str] = KeyField(_("ticket"), max_length=LONGEST)

    class Meta:
        abstract = True


def _key_expression(column: models.Field[Any, Any], using: str) -> models.F | models.Func | None:
    """Return `object_id` in the key column's type; None where the database cannot convert it."""
    if not is_plain(column):
        return None
    if isinstance(column, models.CharField):
        return models.F("object_id")
    if isinstance(column, models.IntegerField):
        return Cast("object_id", models.BigIntegerField())
    if not isinstance(column, models.UUIDField):
        return None
    if connections[using].features.has_native_uuid_field:
        return Cast("object_id", models.UUIDField())
    # The column holds 32 hexadecimal digits, `str(pk)` also dashes.
    return Replace("object_id", models.Value("-"), models.Value(""))


def content_type_of(model: type[models.Model]) -> ContentType:
    """Return the content type in a ticket's rows: that of its source's model."""
    with suppress(SourceError):
        model = get_source(model).model
    return ContentType.objects.get_for_model(model, for_concrete_model=True)
