"""The text of a ticket's key, under which rows about the ticket are stored, and the way back."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from functools import reduce
from hashlib import sha256
from operator import or_
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from django.core.exceptions import EmptyResultSet, ValidationError
from django.db import connections, models, router

LONGEST: Final = 255
"""In characters. A longer text is kept as its beginning and its digest."""

_BEGINNING: Final = LONGEST - 65
_PREFIXES_AT_ONCE: Final = 100
_UNREADABLE: Final = (ValidationError, ValueError, TypeError, AttributeError, OverflowError)

Column: TypeAlias = "models.Field[Any, Any]"


def ticket_key(ticket: models.Model) -> str:
    """Return the text of a ticket's key."""
    return key_text(type(ticket), ticket.pk)


def key_text(model: type[models.Model], key: Any) -> str:
    """Return the text of a key, in whatever form the host or a request has given the key.

    It is `str(pk)` of a row that was read, so "00AF..." becomes a UUID's text; the parts of a
    composite key are joined by commas. A text that is no key of the model is returned as it is.
    """
    try:
        text = _text_of(model._meta.pk, _value_of(model._meta.pk, key))
    except _UNREADABLE:
        text = str(key)
    if len(text) <= LONGEST:
        return text
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{text[:_BEGINNING]}~{digest}"


def read_keys(
    model: type[models.Model], texts: Iterable[str], using: str | None = None
) -> list[Any]:
    """Return the keys that these texts stand for; takes a query where keys were too long."""
    keys: list[Any] = []
    shortened: list[str] = []
    for text in texts:
        try:
            keys.append(_value_of(model._meta.pk, text))
        except _UNREADABLE:
            continue
        if len(text) == LONGEST and text[_BEGINNING] == "~":
            shortened.append(text)
    for start in range(0, len(shortened), _PREFIXES_AT_ONCE):
        wanted = set(shortened[start : start + _PREFIXES_AT_ONCE])
        begins = reduce(or_, (models.Q(pk__startswith=text[:_BEGINNING]) for text in wanted))
        found = model._base_manager.using(using).filter(begins).values_list("pk", flat=True)
        keys += [key for key in found if key_text(model, key) in wanted]
    return keys


def key_list(model: type[models.Model], keys: Collection[Any]) -> Any:
    """Return keys for `pk__in`, however many they are."""
    is_composite = isinstance(model._meta.pk, models.CompositePrimaryKey)
    return list(keys) if is_composite else ValueList(keys, key_column(model))


def key_column(model: type[models.Model]) -> Column:
    """Return the column that holds a model's key: its own, or its parent's."""
    return _target(model._meta.pk)


def is_plain(column: Column) -> bool:
    """Say whether the database holds a key in the form that Python has, and not shortened."""
    is_text = isinstance(column, models.CharField)
    fits = not is_text or (column.max_length or LONGEST + 1) <= LONGEST
    return fits and not hasattr(column, "from_db_value")


class ValueList(models.Expression):
    """Values for `__in`: a single parameter where the database limits their number."""

    def __init__(self, values: Collection[Any], column: Column) -> None:
        super().__init__(output_field=column)
        self.values = values

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Write a parameter for each value."""
        values = self._prepared(connection)
        return f"({', '.join(['%s'] * len(values))})", values

    def as_sqlite(self, compiler: Any, connection: Any) -> Any:
        """Write one parameter, a JSON list."""
        values = self._prepared(connection)
        return "(SELECT value FROM json_each(%s))", [json.dumps(values, default=str)]

    def _prepared(self, connection: Any) -> list[Any]:
        if not self.values:
            raise EmptyResultSet
        column = self.output_field
        return [column.get_db_prep_value(value, connection) for value in self.values]


def _target(column: Column) -> Column:
    while isinstance(column, models.ForeignKey):
        column = column.target_field
    return column


def _value_of(column: Any, key: Any) -> Any:
    """Return a key as it is when its row is read."""
    if isinstance(column, models.CompositePrimaryKey):
        given = map(unquote, key.split(",")) if isinstance(key, str) else key
        parts = zip(column.fields, given, strict=True)
        return tuple(_value_of(part, value) for part, value in parts)
    column = _target(column)
    value = column.to_python(key)
    if not hasattr(column, "from_db_value"):
        return column.to_python(column.get_prep_value(value))
    connection = connections[router.db_for_read(column.model)]
    stored = column.get_db_prep_value(value, connection)
    return column.from_db_value(stored, None, connection)


def _text_of(column: Any, value: Any) -> str:
    if isinstance(column, models.CompositePrimaryKey):
        texts = (_text_of(*pair) for pair in zip(column.fields, value, strict=True))
        return ",".join(text.replace("%", "%25").replace(",", "%2C") for text in texts)
    column = _target(column)
    if isinstance(column, models.DecimalField):
        return f"{value:.{column.decimal_places}f}"
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    if isinstance(value, bytes | memoryview):
        return b64encode(value).decode()
    return str(value)
