"""Receivers of Django's signals, and the context manager that mutes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.apps import AppConfig, apps
from django.db import models, router
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from ticket_priority.db import after_commit
from ticket_priority.exceptions import SourceError
from ticket_priority.models import plugin_database
from ticket_priority.predictions.containment import contain_errors
from ticket_priority.predictions.deletions import deleted_keys, expect_deletion
from ticket_priority.predictions.host_decisions import notice_save, record_decision, remember_stored
from ticket_priority.predictions.on_save import (
    classify_before_insert,
    forget_what_was_read,
    reassert_after_update,
    record_after_insert,
)
from ticket_priority.predictions.outcome import forget
from ticket_priority.predictions.workers import (
    drain_when_loaded,
    ensure_schedules,
    notify_workers,
    transactional_drain,
    wants_drain,
)
from ticket_priority.queues import get_queue
from ticket_priority.sources import TicketSource, get_source

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
    """Connect to a source's model, its proxies and children, and let the source connect too."""
    source.connect(record_decision)
    for sender in (source.model, *_descendants(source.model)):
        uid = f"ticket_priority.{sender._meta.label_lower}"
        pre_save.connect(before_save, sender=sender, dispatch_uid=f"{uid}.pre_save")
        post_save.connect(after_save, sender=sender, dispatch_uid=f"{uid}.post_save")
        pre_delete.connect(before_delete, sender=sender, dispatch_uid=f"{uid}.pre_delete")
        post_delete.connect(after_delete, sender=sender, dispatch_uid=f"{uid}.post_delete")


def before_save(
    sender: type[models.Model],
    instance: models.Model,
    raw: bool,
    using: str,
    update_fields: Collection[str] | None = None,
    **kwargs: Any,
) -> None:
    """Classify a new ticket in sync mode, or read the priority that a save will overwrite."""
    source = _listening_source(sender, instance)
    if source is None or raw:
        return
    if instance._state.adding:
        classify_before_insert(source, instance, using)
        return
    forget_what_was_read(source, instance, update_fields)
    if source.record_changes:
        remember_stored(source, instance, using, update_fields)


def after_save(
    sender: type[models.Model],
    instance: models.Model,
    created: bool,
    raw: bool,
    using: str,
    **kwargs: Any,
) -> None:
    """Store the prediction of a new ticket, or the decision behind a save."""
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


def before_delete(
    sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
) -> None:
    """Note the tickets that one `delete()` deletes, before it deletes the first."""
    if _registered_source(sender) is not None:
        expect_deletion(sender, using, kwargs.get("origin"), instance.pk)


def after_delete(
    sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
) -> None:
    """Delete what is stored about deleted tickets, after the last that one `delete()` deletes."""
    if _registered_source(sender) is not None:
        forget(sender, deleted_keys(sender, using, kwargs.get("origin"), instance.pk))


def after_request(**kwargs: Any) -> None:
    """Answer what waits for a model that was being loaded, once the response has been sent."""
    drain_when_loaded()


def wake_pending(**kwargs: Any) -> None:
    """Have pending tickets classified, now that a model is active."""
    after_commit(notify_workers, using=plugin_database())


def create_schedules(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Create the schedules after our migrations or the queue's, which have its tables."""
    if sender.name in ("ticket_priority", get_queue().app):
        ensure_schedules(using)


def _listening_source(sender: type[models.Model], instance: models.Model) -> TicketSource | None:
    source = None if _muted.get() else _registered_source(sender)
    if source is None:
        return None
    using = router.db_for_write(sender, instance=instance)
    # Whatever goes wrong in an adapter, the ticket must be saved.
    with contain_errors(using, "A ticket of %s is ignored", sender._meta.label):
        return source if source.wants(instance) else None
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
