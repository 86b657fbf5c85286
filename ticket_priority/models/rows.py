"""Rows about tickets, found by content type and key, as a ticket may be of any model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Self

from django.contrib.contenttypes.models import ContentType
from django.db import connections, models
from django.db.models.functions import Cast, Collate, Concat, Replace, Substr
from django.db.models.lookups import Exact
from django.utils.translation import gettext_lazy as _

from ticket_priority.exceptions import SourceError
from ticket_priority.sources import get_source
from ticket_priority.sources.keys import (
    LONGEST,
    ValueList,
    is_plain,
    key_column,
    key_list,
    key_text,
    read_keys,
)

_TEXT: Final = models.CharField(max_length=LONGEST)
_UUID_PARTS: Final = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))


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
        is_here = using in (None, self.db)
        key = _key_expression(key_column(model), self.db, models.F) if is_here else None
        if key is None:
            texts = rows.values_list("object_id", flat=True).distinct()
            return key_list(model, read_keys(model, texts, using))
        return rows.values_list(_ours(model, key, models.F), flat=True)


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


def has_row(rows: TicketRowQuerySet, tickets: models.QuerySet[Any]) -> models.Q:
    """Match the tickets of a query that one of these rows is about.

    It can be negated: PostgreSQL would compare each ticket with each row in a NOT IN, as soon as
    the rows are too many for its memory.
    """
    keys = rows.ticket_keys(tickets.model, tickets.db)
    # MariaDB keeps the keys in a table of its own, and would run an EXISTS for each ticket.
    if not isinstance(keys, models.QuerySet) or connections[rows.db].vendor == "mysql":
        return models.Q(pk__in=keys)
    key = _text_expression(key_column(tickets.model), rows.db)
    about = rows.for_model(tickets.model).order_by()
    return models.Q(models.Exists(about.filter(object_id=key)))


def about(tickets: models.QuerySet[Any], using: str) -> models.Q:
    """Match the rows in a database that are about one of these tickets, of one model."""
    model, ours = tickets.model, models.Q(content_type=content_type_of(tickets.model))
    column = key_column(model)
    key = _key_expression(column, using, models.OuterRef) if tickets.db == using else None
    if key is None:
        keys = tickets.order_by().values_list("pk", flat=True)
        return ours & models.Q(object_id__in=ValueList([key_text(model, pk) for pk in keys], _TEXT))
    found = tickets.order_by().filter(pk=_ours(model, key, models.OuterRef))
    return ours & models.Q(models.Exists(found))


def _ours(model: type[models.Model], key: Any, column: Callable[[str], Any]) -> models.Case:
    """Return a key, and NULL in other models' rows, where converting it may fail."""
    is_ours = Exact(column("content_type"), content_type_of(model).pk)
    return models.Case(models.When(is_ours, then=key))


def _key_expression(column: models.Field[Any, Any], using: str, name: Callable[[str], Any]) -> Any:
    """Return `object_id` in the key column's type; None where the database cannot convert it."""
    if not is_plain(column):
        return None
    text = name("object_id")
    if isinstance(column, models.CharField):
        return text if connections[using].vendor != "mysql" else Collate(text, "utf8mb4_bin")
    if isinstance(column, models.IntegerField):
        return Cast(text, models.BigIntegerField())
    if not isinstance(column, models.UUIDField):
        return None
    if connections[using].features.has_native_uuid_field:
        return Cast(text, models.UUIDField())
    # The column holds 32 hexadecimal digits, `str(pk)` also dashes.
    return Replace(text, models.Value("-"), models.Value(""))


def _text_expression(column: models.Field[Any, Any], using: str) -> Any:
    """Return `str(pk)` of the outer query's ticket."""
    key = models.OuterRef("pk")
    if (
        not isinstance(column, models.UUIDField)
        or connections[using].features.has_native_uuid_field
    ):
        return Cast(key, _TEXT)
    parts: list[Any] = []
    for start, length in _UUID_PARTS:
        parts += [models.Value("-"), Substr(key, start, length, output_field=_TEXT)]
    return Concat(*parts[1:], output_field=_TEXT)


def content_type_of(model: type[models.Model]) -> ContentType:
    """Return the content type in a ticket's rows: that of its source's model."""
    with suppress(SourceError):
        model = get_source(model).model
    return ContentType.objects.get_for_model(model, for_concrete_model=True)
