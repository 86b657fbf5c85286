"""The models that this process holds in memory: one for each role."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Final

from ticket_priority.bounded_calls import Pool
from ticket_priority.classifiers.breaker import Breaker
from ticket_priority.classifiers.loading import ActiveClassifier, load
from ticket_priority.models import ModelVersion

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 30.0
"""How long after a failure a version is not loaded again."""

MOST_MODELS: Final = 4
"""How many models a process holds, where it answers for several tenants: one for each."""


class Role(StrEnum):
    """What a process uses a model for."""

    ACTIVE = "active"
    SHADOW = "shadow"


@dataclass(eq=False, slots=True)
class Load:
    """One attempt to load a version: one thread makes it, others may wait for it.

    `error` and `ended_at` are valid once `ended` is set; an empty error means success.
    """

    version: ModelVersion
    begun_at: float = field(default_factory=time.monotonic)
    ended: threading.Event = field(default_factory=threading.Event)
    ended_at: float = 0.0
    error: str = ""
    is_told: bool = False

    @property
    def blocks(self) -> bool:
        """Whether another attempt must wait: this is going on, or has just failed."""
        if not self.ended.is_set():
            return True
        return bool(self.error) and time.monotonic() - self.ended_at < RETRY_SECONDS


class Slot:
    """The models loaded for one role, and the attempts to load one. Thread-safe.

    Versions are told apart by their identity, as a key may be another tenant's version.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The one that was asked last comes last.
        self._loaded: dict[tuple[str, str], ActiveClassifier] = {}
        self._loads: dict[tuple[str, str], Load] = {}

    @property
    def loaded(self) -> ActiveClassifier | None:
        """The model that was asked last."""
        with self._lock:
            return next(reversed(self._loaded.values()), None)

    def find(self, version: ModelVersion) -> ActiveClassifier | None:
        """Return the model of a version, where it is loaded."""
        with self._lock:
            found = self._loaded.pop(version.identity, None)
            if found is not None:
                self._loaded[version.identity] = found
            return found

    def holds(self, version: ModelVersion) -> bool:
        """Say whether the model of a version is loaded."""
        return version.identity in self._loaded

    def others(self, version: ModelVersion) -> list[str]:
        """Return the names of the other versions that are loaded."""
        with self._lock:
            return [name for name, digest in self._loaded if (name, digest) != version.identity]

    def release(self, *, keep: ModelVersion | None = None) -> None:
        """Free the memory of all models but that of a version."""
        with self._lock:
            kept = None if keep is None else keep.identity
            self._loaded = {key: one for key, one in self._loaded.items() if key == kept}

    def drop(self, version: ModelVersion) -> None:
        """Free the memory of a version's model."""
        with self._lock:
            self._loaded.pop(version.identity, None)

    def follow(self, version: ModelVersion, *, in_background: bool = False) -> Load | None:
        """Load a version, here or in a new thread, unless it is loaded or an attempt blocks it.

        Returns the newest attempt, which may be another thread's, or None where none was needed.
        """
        with self._lock:
            if version.identity in self._loaded:
                return None
            newest = self._loads.get(version.identity)
            if newest is not None and newest.blocks:
                return newest
            newest = Load(version)
            if in_background:
                # A pool's thread, because the process waits for its calls before it ends.
                Pool(threads=1).submit(partial(self._run, newest), math.inf)
            self._loads[version.identity] = newest
        if not in_background:
            self._run(newest)
        return newest

    def take_outcome(self, version: ModelVersion) -> Load | None:
        """Return a version's attempt that has ended, to the first caller only.

        The caller stores its error: the thread that makes an attempt may have no connection to the
        database, and another tenant's caller would store it in another version's row.
        """
        with self._lock:
            outcome = self._loads.get(version.identity)
            if outcome is None or outcome.is_told or not outcome.ended_at:
                return None
            outcome.is_told = True
            return outcome

    def _run(self, attempt: Load) -> None:
        try:
            attempt.error = self._load(attempt.version)
            attempt.ended_at = time.monotonic()
        finally:
            attempt.ended.set()

    def _load(self, version: ModelVersion) -> str:
        try:
            loaded = ActiveClassifier(version, load(version), breaker=Breaker(version.name))
        except Exception as error:
            # Whatever a broken artifact raises, the previous version must go on serving.
            logger.exception("Model version %s cannot be loaded", version.name)
            return str(error) or repr(error)
        with self._lock:
            self._loaded[version.identity] = loaded
            while len(self._loaded) > MOST_MODELS:
                del self._loaded[next(iter(self._loaded))]
        return ""


_slots: dict[tuple[int, Role], Slot] = {}
"""By process id. A forked child inherits its parent's slots but neither uses nor deletes them:
destroying a session whose threads did not survive the fork would hang."""


def slot_for(role: Role) -> Slot:
    """Return this process's slot for a role; after a fork it is empty."""
    key = (os.getpid(), role)
    if key not in _slots:
        for (_pid, other), slot in _slots.copy().items():
            if other == role and slot._loaded:
                # Without the lock, which a thread of the parent may have held at the fork.
                names = ", ".join(name for name, _digest in slot._loaded.copy())
                logger.warning(
                    "The parent of this process had loaded %s, which cannot be used here and stays "
                    "in memory: load it after the fork, with ticket_priority.preload() in "
                    "gunicorn's post_worker_init",
                    names,
                )
    return _slots.setdefault(key, Slot())


def reset() -> None:
    """Forget what this process has loaded."""
    for role in Role:
        _slots.pop((os.getpid(), role), None)
