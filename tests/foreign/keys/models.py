from __future__ import annotations

import uuid
from typing import Any

from django.db import connection, models

VENDOR = connection.vendor
# The other two tell letter case apart without being asked.
CASE_SENSITIVE = "utf8mb4_bin" if VENDOR == "mysql" else None
OF_ITS_OWN = {"mysql": "utf8mb4_unicode_ci", "postgresql": "C", "sqlite": "NOCASE"}[VENDOR]


class Keyed(models.Model):
    body = models.TextField()
    team = models.IntegerField(default=1)
    severity = models.IntegerField(null=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.body


class Numbered(Keyed):
    """A plain key, which a host may give as text."""


class Unique(Keyed):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)


class Mail(Keyed):
    message_id = models.CharField(primary_key=True, max_length=250)


class LongMail(Keyed):
    message_id = models.CharField(primary_key=True, max_length=600)


class Coded(Keyed):
    code = models.CharField(primary_key=True, max_length=22, db_collation=CASE_SENSITIVE)


class Collated(Keyed):
    code = models.CharField(primary_key=True, max_length=22, db_collation=OF_ITS_OWN)


class CodedChild(Coded):
    """Its key is its parent's."""


class Opaque:
    """A number that is shown as text, as hashids are."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __str__(self) -> str:
        return f"h{self.number * 7919:x}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


class OpaqueField(models.BigAutoField):
    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else Opaque(value)

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str):
            return Opaque(int(value.removeprefix("h"), 16) // 7919)
        return Opaque(value) if isinstance(value, int) else value

    def get_prep_value(self, value: Any) -> Any:
        found = self.to_python(value)
        return None if found is None else found.number


class Hidden(Keyed):
    id = OpaqueField(primary_key=True)


class LowerCaseField(models.CharField):  # type: ignore[type-arg]
    """Stores what it is given in lower case."""

    def get_prep_value(self, value: Any) -> Any:
        found = super().get_prep_value(value)
        return None if found is None else found.lower()


class Lowered(Keyed):
    code = LowerCaseField(primary_key=True, max_length=22)


class Priced(Keyed):
    number = models.DecimalField(primary_key=True, max_digits=8, decimal_places=2)


class Timed(Keyed):
    at = models.DateTimeField(primary_key=True)


class Composite(Keyed):
    pk = models.CompositePrimaryKey("tenant", "number", "case")
    tenant = models.CharField(max_length=20)
    number = models.IntegerField()
    case = models.UUIDField(default=uuid.uuid4)


class CodedProxy(Coded):
    class Meta:
        proxy = True


class OtherCodedProxy(Coded):
    class Meta:
        proxy = True


def first_team(rows: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    """Return the tickets that the tests' user may see and change."""
    return rows.filter(team=1)
