"""Erase what is stored about deleted tickets, or about a person.

When Django deletes a ticket, its rows are deleted too. This is for tickets that were deleted
without Django, and for a person's request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.db import models, router, transaction

from ticket_priority.db import pages_by_key
from ticket_priority.models import (
    ABOUT_TICKETS,
    Override,
    Prediction,
    ShadowPrediction,
    SwitchChange,
    plugin_database,
)
from ticket_priority.models.rows import TicketRowQuerySet
from ticket_priority.sources.base import TicketSource

_Table = type[Override] | type[Prediction] | type[ShadowPrediction]

_AT_ONCE: Final = 500


def about_tickets(
    model: type[models.Model], keys: Sequence[Any], *, dry_run: bool = False
) -> Counter[str]:
    """Erase the rows about a model's tickets; return their number by the table's name.

    With `dry_run` they are only counted.
    """
    erased: Counter[str] = Counter()
    with transaction.atomic(using=plugin_database()):
        for table in ABOUT_TICKETS:
            erased[table.__name__] += _erase(_rows(table, model).for_keys(model, keys), dry_run)
    return erased


def about_gone_tickets(
    sources: Iterable[TicketSource], *, databases: Sequence[str] = (), dry_run: bool = False
) -> Counter[str]:
    """Erase the rows about tickets that are in none of these databases, and count them.

    `databases` defaults to the one that the tickets are written to.
    """
    erased: Counter[str] = Counter()
    for source in sources:
        where = databases or (router.db_for_write(source.model),)
        for table in ABOUT_TICKETS:
            rows = _rows(table, source.model)
            found = rows.values_list("object_id", flat=True).distinct()
            for keys in pages_by_key(found, _AT_ONCE, key="object_id"):
                left = set(keys)
                for using in where:
                    left -= source.by_keys(left, using=using).keys()
                gone = rows.filter(object_id__in=left)
                erased[table.__name__] += _erase(gone, dry_run)
    return erased


def about_person(user: Any, *, dry_run: bool = False) -> Counter[str]:
    """Remove a person's name and reasons from their decisions; the decisions stay as labels."""
    erased: Counter[str] = Counter()
    using = plugin_database()
    with transaction.atomic(using=using):
        for table in (Override, SwitchChange):
            theirs = table.objects.using(using).filter(user=user.pk)
            changed = theirs.count() if dry_run else theirs.update(user=None, reason="")
            erased[table.__name__] += changed
    return erased


def _rows(table: _Table, model: type[models.Model]) -> TicketRowQuerySet:
    rows: TicketRowQuerySet = table.objects.using(plugin_database()).for_model(model)
    return rows


def _erase(rows: TicketRowQuerySet, dry_run: bool) -> int:
    return rows.count() if dry_run else rows.delete()[0]
