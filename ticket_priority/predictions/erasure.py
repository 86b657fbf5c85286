"""Erase what is stored about deleted tickets, or about a person.

When Django deletes a ticket, its rows are deleted too. This is for tickets that were deleted
without Django, and for a person's request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.contrib.contenttypes.models import ContentType
from django.db import models, router, transaction

from ticket_priority.db import pages_by_key
from ticket_priority.exceptions import SourceError
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
from ticket_priority.sources.registry import get_source

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


def about_gone_tickets(*, databases: Sequence[str] = (), dry_run: bool = False) -> Counter[str]:
    """Erase the rows about tickets that are in none of these databases, and count them.

    Rows of models that are no source any more count too. `databases` defaults to the one that the
    tickets are written to.
    """
    erased: Counter[str] = Counter()
    for source in _stored_sources():
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


def lost_types() -> list[str]:
    """Return the models, as `app_label.model`, that rows are about and the project lacks."""
    return [f"{kind.app_label}.{kind.model}" for kind in _stored_types() if not kind.model_class()]


def _stored_types() -> list[ContentType]:
    using = plugin_database()
    rows = (table.objects.using(using).order_by() for table in ABOUT_TICKETS)
    keys = {key for each in rows for key in each.values_list("content_type", flat=True).distinct()}
    return [ContentType.objects.get_for_id(key) for key in sorted(keys)]


def _stored_sources() -> Iterator[TicketSource]:
    """Yield a source for each model that rows are about, unless its host is unavailable."""
    for kind in _stored_types():
        if (model := kind.model_class()) is None:
            continue
        try:
            source = get_source(model)
        except SourceError:
            source = TicketSource(model)
        if not source.why_unavailable():
            yield source


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
    return rows.count() if dry_run else rows.erase()
