"""Odd primary keys."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import connection, models

from tests.foreign.models.base import Basis, Ticket

# The other two tell letter case apart without being asked.
CASE_SENSITIVE = "utf8mb4_bin" if connection.vendor == "mysql" else None
OF_ITS_OWN = "utf8mb4_unicode_ci" if connection.vendor == "mysql" else None


class UuidKey(Ticket):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)


class TextKey(Ticket):
    number = models.CharField(primary_key=True, max_length=30)


class LongKey(Ticket):
    message_id = models.CharField(primary_key=True, max_length=250)


class CaseSensitiveKey(Ticket):
    code = models.CharField(primary_key=True, max_length=22, db_collation=CASE_SENSITIVE)


class CollatedKey(Ticket):
    code = models.CharField(primary_key=True, max_length=22, db_collation=OF_ITS_OWN)


class HashId(str):
    """A number that is shown as text, as hashids are."""

    __slots__ = ()

    @classmethod
    def of(cls, number: int) -> HashId:
        return cls(f"H{number * 7919:08x}")

    @property
    def number(self) -> int:
        return int(self[1:], 16) // 7919


class HashIdField(models.BigAutoField):
    """Stores a number, which Python sees as a `HashId`: `str(pk)` is not what the column holds."""

    def from_db_value(self, value: Any, expression: Any, using: Any) -> Any:
        return None if value is None else HashId.of(value)

    def to_python(self, value: Any) -> Any:
        if value is None or isinstance(value, HashId):
            return value
        text = str(value)
        return HashId(text) if text.startswith("H") else HashId.of(int(text))

    def get_prep_value(self, value: Any) -> Any:
        found = self.to_python(value)
        return None if found is None else found.number


class HashIdKey(Ticket):
    id = HashIdField(primary_key=True)


class CompositeKey(Ticket):
    pk = models.CompositePrimaryKey("tenant", "number")
    tenant = models.IntegerField()
    number = models.IntegerField()


class OneToOneKey(Ticket):
    basis = models.OneToOneField(Basis, on_delete=models.CASCADE, primary_key=True)


class KeyToUuid(Ticket):
    """The key of a key: its text is a UUID's, and its column is a foreign key."""

    case = models.OneToOneField(UuidKey, on_delete=models.CASCADE, primary_key=True)


class SmallKey(Ticket):
    id = models.SmallAutoField(primary_key=True)
