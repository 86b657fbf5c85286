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

    def blocks(self, version: ModelVersion) -> bool:
        """Say whether loading a version must wait: this is going on, or has just failed at it."""
        if not self.ended.is_set():
            return True
        is_recent = time.monotonic() - self.ended_at < RETRY_SECONDS
        return bool(self.error) and is_recent and self.version.pk == version.pk


class Slot:
    """The model loaded for one role, and the newest attempt to load one. Thread-safe."""

    def __init__(self) -> None:
        self.loaded: ActiveClassifier | None = None
        self._lock = threading.Lock()
        self._newest: Load | None = None
        self._outcome: Load | None = None

    def follow(self, version: ModelVersion, *, in_background: bool = False) -> Load | None:
        """Load a version, here or in a new thread, unless it is loaded or an attempt blocks it.

        Returns the newest attempt, which may be another thread's, or None where none was needed.
        The model loaded before stays in place until the new one is ready.
        """
        with self._lock:
            if self.loaded is not None and self.loaded.model_version.pk == version.pk:
                return None
            if self._newest is not None and self._newest.blocks(version):
                return self._newest
            newest = Load(version)
            if in_background:
                # A pool's thread, because the process waits for its calls before it ends.
                Pool(threads=1).submit(partial(self._run, newest), math.inf)
            self._newest = newest
        if not in_background:
            self._run(newest)
        return newest

    def take_outcome(self) -> Load | None:
        """Return the attempt that ended last, to the first caller only, who stores its error.

        The thread that makes an attempt may have no database connection.
        """
        with self._lock:
            outcome, self._outcome = self._outcome, None
        return outcome

    def _run(self, attempt: Load) -> None:
        try:
            attempt.error = self._load(attempt.version)
            attempt.ended_at = time.monotonic()
            with self._lock:
                self._outcome = attempt
        finally:
            attempt.ended.set()

    def _load(self, version: ModelVersion) -> str:
        try:
            self.loaded = ActiveClassifier(version, load(version), breaker=Breaker(version.name))
        except Exception as error:
            # Whatever a broken artifact raises, the previous version must go on serving.
            logger.exception("Model version %s cannot be loaded", version.name)
            return str(error) or repr(error)
        return ""


_slots: dict[tuple[int, Role], Slot] = {}
"""By process id. A forked child inherits its parent's slots but neither uses nor deletes them:
destroying a session whose threads did not survive the fork would hang."""


def slot_for(role: Role) -> Slot:
    """Return this process's slot for a role; after a fork it is empty."""
    key = (os.getpid(), role)
    if key not in _slots:
        for (_pid, other), slot in _slots.copy().items():
            if other == role and slot.loaded is not None:
                logger.warning(
                    "The parent of this process had loaded %s, which cannot be used here and stays "
                    "in memory: load it after the fork, with ticket_priority.preload() in "
                    "gunicorn's post_worker_init",
                    slot.loaded.model_version.name,
                )
    return _slots.setdefault(key, Slot())


def reset() -> None:
    """Forget what this process has loaded."""
    for role in Role:
        _slots.pop((os.getpid(), role), None)
