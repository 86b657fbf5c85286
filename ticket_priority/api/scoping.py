"""Narrow predictions and overrides to those about tickets that a user may see."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from django.db import connections, models
from django.db.models import F, Q, Value
from django.db.models.functions import Cast, Collate, Concat, Substr

from ticket_priority.models.rows import content_type_of
from ticket_priority.sources.keys import LONGEST, ValueList, is_plain, key_column, key_text
from ticket_priority.sources.registry import all_sources

Row = TypeVar("Row", bound=models.Model)

_KEY: Final = "ticket_priority_key"
_TEXT: Final = models.CharField(max_length=LONGEST)
_UUID_PARTS: Final = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))


def visible(rows: models.QuerySet[Row], user: Any) -> models.QuerySet[Row]:
    """Narrow rows to those about tickets of registered sources that `user` may see.

    Tickets are found by content type and by `key_text` in a subquery: a join across the generic
    relation finds nothing on SQLite where the key is a UUID.
    """
    condition = Q(pk__in=[])
    for source in all_sources():
        tickets = source.visible_rows(user).order_by()
        about_visible = Q(content_type=content_type_of(source.model).pk)
        if tickets.query.where:
            about_visible &= Q(object_id__in=_keys(tickets, rows.db))
        condition |= about_visible
    return rows.filter(condition)


def _keys(tickets: models.QuerySet[Any], using: str) -> Any:
    """Return `key_text` of each ticket, as a subquery where SQL can compute it."""
    column = key_column(tickets.model)
    expression = _key_expression(column, using) if tickets.db == using else None
    if expression is None:
        keys = tickets.values_list("pk", flat=True)
        return ValueList([key_text(tickets.model, key) for key in keys], _TEXT)
    return tickets.annotate(**{_KEY: expression}).values(_KEY)


def _key_expression(column: models.Field[Any, Any], using: str) -> Any:
    """Return `key_text` as a SQL expression, or None where only Python can compute it."""
    connection = connections[using]
    expression: Any
    if not is_plain(column):
        return None
    if isinstance(column, models.UUIDField) and not connection.features.has_native_uuid_field:
        expression = _dashed(F("pk"))
    elif isinstance(column, models.IntegerField | models.UUIDField | models.CharField):
        expression = Cast("pk", _TEXT)
    else:
        return None
    if connection.vendor == "mysql":
        # MariaDB refuses to compare where the collations of connection and column differ.
        expression = Collate(expression, "utf8mb4_bin")
    return expression


def _dashed(key: F) -> Concat:
    """Return the 32 hexadecimal digits of a UUID column in the form of `str(uuid)`."""
    parts: list[Any] = []
    for start, length in _UUID_PARTS:
        parts += [Value("-"), Substr(key, start, length, output_field=_TEXT)]
    return Concat(*parts[1:], output_field=_TEXT)
