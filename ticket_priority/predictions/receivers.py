"""Django signal receivers, and the context manager that mutes them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.apps import AppConfig, apps
from django.db import models, router
from django.db.models.signals import post_delete, post_save, pre_save

from ticket_priority.db import after_commit, needs_rollback
from ticket_priority.exceptions import SourceError
from ticket_priority.logs import redacted_traceback
from ticket_priority.models import plugin_database
from ticket_priority.predictions.on_save import (
    classify_before_insert,
    reassert_after_update,
    record_after_insert,
)
from ticket_priority.predictions.outcome import forget
from ticket_priority.predictions.overrides import notice_save, record_decision, remember_stored
from ticket_priority.predictions.workers import (
    ensure_schedules,
    notify_workers,
    transactional_drain,
    wants_drain,
)
from ticket_priority.queues import get_queue
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import get_source

logger = logging.getLogger(__name__)

_muted: ContextVar[bool] = ContextVar("ticket_priority_muted", default=False)


@contextmanager
def muted() -> Iterator[None]:
    """Save tickets without classifying them, in this thread or task."""
    token = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(token)


def connect(source: TicketSource) -> None:
    """Listen to a source's model, its proxies and its children, and let it listen to its host."""
    source.connect(record_decision)
    for sender in (source.model, *_descendants(source.model)):
        uid = f"ticket_priority.{sender._meta.label_lower}"
        pre_save.connect(before_save, sender=sender, dispatch_uid=f"{uid}.pre_save")
        post_save.connect(after_save, sender=sender, dispatch_uid=f"{uid}.post_save")
        post_delete.connect(after_delete, sender=sender, dispatch_uid=f"{uid}.post_delete")


def before_save(
    sender: type[models.Model],
    instance: models.Model,
    raw: bool,
    using: str,
    update_fields: Collection[str] | None = None,
    **kwargs: Any,
) -> None:
    source = _listening_source(sender, instance)
    if source is None or raw:
        return
    if instance._state.adding:
        classify_before_insert(source, instance, using)
    elif source.record_changes:
        remember_stored(source, instance, using, update_fields)


def after_save(
    sender: type[models.Model],
    instance: models.Model,
    created: bool,
    raw: bool,
    using: str,
    **kwargs: Any,
) -> None:
    source = _listening_source(sender, instance)
    if source is None or raw:
        return
    if not created:
        reassert_after_update(source, instance, using)
        notice_save(source, instance)
        return
    tell = transactional_drain(using)
    prediction = record_after_insert(source, instance, using, tell=tell)
    if prediction is not None and tell is None and wants_drain(prediction):
        after_commit(notify_workers, using=using)


def after_delete(
    sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
) -> None:
    source = _registered_source(sender)
    if source is not None:
        forget(instance)


def wake_pending(**kwargs: Any) -> None:
    """A model serves now: tickets that waited for one need wait no longer."""
    after_commit(notify_workers, using=plugin_database())


def create_schedules(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Once the queue's own tables are there, which may be migrated after ours."""
    if sender.name in ("ticket_priority", get_queue().app):
        ensure_schedules(using)


def _listening_source(sender: type[models.Model], instance: models.Model) -> TicketSource | None:
    source = None if _muted.get() else _registered_source(sender)
    try:
        return source if source is not None and source.wants(instance) else None
    except Exception as error:
        if needs_rollback(router.db_for_write(sender, instance=instance)):
            raise
        # Whatever goes wrong in an adapter, the ticket must be saved.
        logger.error(
            "A ticket of %s is left alone: %s", sender._meta.label, redacted_traceback(error)
        )
        return None


def _registered_source(sender: type[models.Model]) -> TicketSource | None:
    try:
        return get_source(sender)
    except SourceError:
        return None


def _descendants(model: type[models.Model]) -> list[type[models.Model]]:
    if not apps.models_ready:
        return []
    return [other for other in apps.get_models() if other is not model and issubclass(other, model)]
