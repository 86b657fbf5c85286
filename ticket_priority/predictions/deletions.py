"""The tickets that one `delete()` deletes: Django signals each, and never the end."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

from django.db import models

_Key = tuple[type[models.Model], str, int]


@dataclass(slots=True)
class _Deletion:
    expected: set[Any] = field(default_factory=set)
    deleted: list[Any] = field(default_factory=list)


class _Running(threading.local):
    def __init__(self) -> None:
        self.deletions: dict[_Key, _Deletion] = {}


_running = _Running()


def expect_deletion(sender: type[models.Model], using: str, origin: Any, pk: Any) -> None:
    """Note a ticket that is about to be deleted; `origin` is the object with the `delete()`."""
    if origin is None:
        return
    deletions, key = _running.deletions, (sender, using, id(origin))
    if key not in deletions:
        # Where it fails halfway, its rest goes with its origin, whose id may be used again.
        weakref.finalize(origin, deletions.pop, key, None)
    known = deletions.get(key)
    if known is None or known.deleted or pk in known.expected:
        # The second case: one that failed halfway is tried again.
        deletions[key] = known = _Deletion()
    known.expected.add(pk)


def deleted_keys(sender: type[models.Model], using: str, origin: Any, pk: Any) -> list[Any]:
    """Note a deleted ticket; return the keys of all, once the last of them is deleted."""
    key = sender, using, id(origin)
    if (deletion := _running.deletions.get(key)) is None:
        return [pk]
    deletion.deleted.append(pk)
    if len(deletion.deleted) < len(deletion.expected):
        return []
    return _running.deletions.pop(key).deleted
