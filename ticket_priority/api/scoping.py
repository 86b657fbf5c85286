"""Narrow predictions and overrides to those about tickets that a user may see."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, TypeVar

from django.db import models
from django.db.models import Q

from ticket_priority.models.rows import about, content_type_of
from ticket_priority.sources.registry import all_sources

Row = TypeVar("Row", bound=models.Model)


def visible(rows: models.QuerySet[Row], user: Any) -> models.QuerySet[Row]:
    """Narrow rows to those about tickets of registered sources that `user` may see.

    Tickets are found by content type and by `key_text` in a subquery: a join across the generic
    relation finds nothing on SQLite where the key is a UUID.
    """
    return rows.filter(reduce(or_, _conditions(rows, user), Q(pk__in=[])))


def count(rows: models.QuerySet[Any], user: Any) -> int:
    """Count the rows that `visible` returns.

    Each source in its own part of a UNION, which a database can join; it cannot join an OR.
    """
    parts = [
        rows.order_by().filter(condition).values("pk") for condition in _conditions(rows, user)
    ]
    first, *others = parts or [rows.none()]
    return first.union(*others, all=True).count() if others else first.count()


def _conditions(rows: models.QuerySet[Any], user: Any) -> list[Q]:
    """Return a condition for each source, and one for all those whose every ticket is visible."""
    narrow, whole = [], Q()
    for source in all_sources():
        tickets = source.visible_rows(user)
        if tickets.query.where:
            narrow.append(about(tickets, rows.db))
        else:
            whole |= Q(content_type=content_type_of(source.model))
    return [*narrow, whole] if whole else narrow
