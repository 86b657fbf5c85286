"""What the plugin knows of an object of the host, without an attribute on it."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Generic, TypeVar

from django.db import models

T = TypeVar("T")


class Notes(Generic[T]):
    """Keeps one value for an object while that lives; copies and pickles of it have none.

    Objects are known by identity, since a model without a key cannot be hashed. A value must not
    refer to its object, which would then live for ever. Threads may share it.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[models.Model], T]] = {}

    def put(self, instance: models.Model, value: T) -> None:
        """Keep a value for an object."""
        # Python reuses an id only after this callback has run.
        forget = partial(self._forget, id(instance))
        self._kept[id(instance)] = weakref.ref(instance, forget), value

    def get(self, instance: models.Model) -> T | None:
        """Return the object's value; None where there is none."""
        kept = self._kept.get(id(instance))
        return None if kept is None else kept[1]

    def pop(self, instance: models.Model) -> T | None:
        """Remove and return the object's value; None where there is none."""
        kept = self._kept.pop(id(instance), None)
        return None if kept is None else kept[1]

    def _forget(self, key: int, ref: object) -> None:
        self._kept.pop(key, None)
