"""Which rows are the newest about their ticket, and the mark on them. Also used by migrations."""

from __future__ import annotations

from typing import Any, Final

from django.db import models

_AT_ONCE: Final = 2000


def has_newer(rows: models.QuerySet[Any]) -> models.Exists:
    """Match the rows about whose ticket there is a newer one in the table."""
    newer = rows.model._base_manager.using(rows.db).filter(
        content_type=models.OuterRef("content_type"),
        object_id=models.OuterRef("object_id"),
        pk__gt=models.OuterRef("pk"),
    )
    return models.Exists(newer.order_by())


def mark_newest(rows: models.QuerySet[Any]) -> int:
    """Set `is_newest` of the rows that lack it, in batches; return their number.

    Older rows that are marked as the newest about the same tickets lose that mark.
    """
    unmarked = rows.filter(is_newest=None).annotate(is_old=has_newer(rows)).order_by("pk")
    values = unmarked.values_list("pk", "content_type", "object_id", "is_old")
    number = last = 0
    while page := list(values.filter(pk__gt=last)[:_AT_ONCE]):
        old = [pk for pk, _type, _key, is_old in page if is_old]
        for type_id in {type_id for _pk, type_id, _key, _old in page}:
            keys = {key for _pk, other, key, is_old in page if other == type_id and not is_old}
            marked = rows.filter(content_type=type_id, object_id__in=keys, is_newest=True)
            old += marked.values_list("pk", flat=True)
        rows.filter(pk__in=old).update(is_newest=False)
        rows.filter(pk__in=[pk for pk, *_ in page], is_newest=None).update(is_newest=True)
        last = page[-1][0]
        number += len(page)
    return number
