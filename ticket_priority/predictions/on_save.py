"""Classify new tickets: before their INSERT in sync mode, else as a pending prediction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

from django.db import models, transaction
from django.db.models.base import ModelState

from ticket_priority.classifiers import get_classifier, get_classifier_in_request
from ticket_priority.conf import get_settings
from ticket_priority.db import SAVE_SECONDS, after_commit, retry_on_deadlock
from ticket_priority.exceptions import (
    BreakerOpenError,
    ModelOverloadedError,
    ModelTimeoutError,
    ModelUnavailableError,
    SwitchedOffError,
)
from ticket_priority.logs import redacted_traceback
from ticket_priority.ml.text.normalisation import normalise
from ticket_priority.ml.types import Classification
from ticket_priority.models import ModelVersion, Override, Prediction, plugin_database
from ticket_priority.predictions import audit
from ticket_priority.predictions.containment import contain_errors, savepoint
from ticket_priority.predictions.copies import again, note_copy
from ticket_priority.predictions.outcome import (
    DRAFTS,
    Reason,
    State,
    after_apply,
    announce_new,
    fill,
    fill_abstained,
    is_as_drafted,
    language_for,
    priority_of,
    save_about,
    saved_value,
    suggest_unless_applicable,
)
from ticket_priority.predictions.refusals import (
    fill_gap,
    insert_without_if_refused,
    suggest_if_refused,
)
from ticket_priority.sources import TicketSource
from ticket_priority.sources.refusals import lacks_value

logger = logging.getLogger(__name__)

_NOT_STORED: Final = "The prediction of a new %s could not be stored"
_READ_ANEW: Final = "_prefetched_objects_cache"
"""What `refresh_from_db()` gives to an object, and a new one lacks."""
_WHY_UNANSWERED: Final = {
    ModelTimeoutError: Reason.DEADLINE,
    ModelOverloadedError: Reason.OVERLOADED,
    BreakerOpenError: Reason.BREAKER_OPEN,
    SwitchedOffError: Reason.DISABLED,
}


def classify(texts: Sequence[str]) -> list[Classification]:
    """Classify raw texts with the active model, in their order, without storing anything.

    Raises ModelUnavailableError when no model can answer, as when it takes longer than DEADLINE_MS
    for each text.
    """
    return classify_with_version(texts)[1]


def classify_with_version(texts: Sequence[str]) -> tuple[ModelVersion, list[Classification]]:
    """Classify raw texts like `classify()`; return the model version that answered too."""
    classifier = get_classifier_in_request()
    with classifier.breaker.attempt():
        answers = classifier.ask([normalise(text) for text in texts])
    return classifier.model_version, answers


def classify_before_insert(source: TicketSource, instance: models.Model, using: str) -> None:
    """Set the priority in memory in sync mode, so that the ticket's own INSERT stores it.

    In every mode a ticket that the host's table would refuse without a priority gets one.
    """
    value, mode, draft = None, source.effective_mode, None
    answers = mode == "sync" and get_settings().enabled and not _may_update(instance)
    # Whatever goes wrong in a model, the ticket must be saved.
    with contain_errors(using, "A ticket of %s is saved without priority", source.label):
        if not source.is_unset(source.value_of(instance)):
            return
        with savepoint(using):
            is_filled = _lacks_value(source, instance, using) and fill_gap(source, instance, using)
        value = source.value_of(instance)
        if not answers:
            if is_filled:
                DRAFTS.put(instance, _request(source, value))
            return
        mode = audit.draw(mode)
        classified = Prediction(mode=mode, value_before=source.as_json(value))
        with savepoint(using):
            _classify_draft(source, instance, classified, using)
        draft = classified
    if answers:
        unanswered = Prediction(
            mode=mode,
            value_before=source.as_json(value),
            state=State.PENDING,
            reason=Reason.MODEL_ERROR,
        )
        DRAFTS.put(instance, draft or unanswered)


def record_after_insert(
    source: TicketSource,
    instance: models.Model,
    using: str,
    *,
    tell: Callable[[], None] | None = None,
) -> Prediction | None:
    """Store the prediction of a new ticket, in the ticket's own transaction.

    `tell` notifies a worker of a pending one, and is called in the same transaction. If tickets
    live in another database than the plugin's rows, the prediction is stored after the commit.
    Returns None when a person set the priority, or the prediction could not be stored. Errors as
    in `contain_errors`.
    """
    prediction, is_stored = None, False
    with contain_errors(using, _NOT_STORED, source.label):
        value = saved_value(source, instance, using)
        prediction = _drafted(source, instance) or _pending(source, value)
        if prediction is None:
            note_copy(source, instance, value, using)
            return None
        if using != plugin_database():
            after_commit(partial(_store_apart, source, instance, prediction, using), using=using)
        else:
            store = partial(_store_new, source, instance, prediction, using, tell)
            retry_on_deadlock(store, using=using, seconds=SAVE_SECONDS)
            if prediction.state == State.PENDING:
                DRAFTS.put(instance, prediction)
        is_stored = True
    if prediction is None or not is_stored:
        _unset_unrecorded(source, instance, prediction, using)
        return None
    if prediction.state == State.APPLIED:
        after_apply(source, instance, prediction, using, at_creation=True)
    announce_new(instance, prediction)
    return prediction


def forget_what_was_read(
    source: TicketSource, instance: models.Model, update_fields: Collection[str] | None
) -> None:
    """Forget the first prediction of an object that knows what became of it.

    Then an unset priority is meant: the object was read anew, or the save names the priority.
    """
    is_named = update_fields is not None and source.is_among(update_fields)
    if is_named or _READ_ANEW in instance.__dict__:
        DRAFTS.pop(instance)


def reassert_after_update(source: TicketSource, instance: models.Model, using: str) -> None:
    """Write a prediction again after the object of the new ticket was saved over it.

    Some hosts save a new ticket's object several times. If a worker applies a prediction in
    between, the next save restores the old value. Errors as in `contain_errors`.
    """
    draft = DRAFTS.get(instance)
    if draft is None or draft.pk is None or draft.state != State.PENDING:
        return
    message = "A save of %s may have overwritten a prediction"
    with contain_errors(using, message, source.label):
        if is_as_drafted(source, instance, draft):
            with savepoint(using):
                _reassert(source, instance, draft, using)


def _reassert(source: TicketSource, instance: models.Model, draft: Prediction, using: str) -> None:
    settled = Prediction.objects.using(plugin_database()).get(pk=draft.pk)
    if settled.state != State.APPLIED:
        return
    overrides = Override.objects.using(plugin_database())
    if overrides.for_keys(source.model, [instance.pk]).exists():
        return
    before = source.value_of(instance)
    priority = priority_of(settled)
    if source.compare_and_set(instance.pk, before=before, priority=priority, using=using):
        source.set_on(instance, priority)


def _store_apart(
    source: TicketSource, instance: models.Model, prediction: Prediction, using: str
) -> None:
    """Store the prediction of a ticket that lives in another database. Never raises.

    Django fails to log an error of a partial in `on_commit`, as a partial has no name.
    """
    try:
        save_about(source, instance, prediction)
    except Exception as error:
        logger.error(f"{_NOT_STORED}: %s", source.label, redacted_traceback(error))
        _unset_unrecorded(source, instance, prediction, using)


def _store_new(
    source: TicketSource,
    instance: models.Model,
    prediction: Prediction,
    using: str,
    tell: Callable[[], None] | None,
) -> None:
    if tell is not None and prediction.needs_worker:
        message = "No worker could be notified of a new %s; the sweep will find it"
        with contain_errors(using, message, source.label):
            # Both or neither, and in autocommit one commit for the two.
            with transaction.atomic(using=using):
                save_about(source, instance, prediction)
                tell()
            return
        prediction.pk, prediction._state = None, ModelState()
    with savepoint(using):
        save_about(source, instance, prediction)


def _may_update(instance: models.Model) -> bool:
    """Say whether saving may be an UPDATE: the object has a key that Django did not generate."""
    key = instance._meta.pk
    return instance.pk is not None and not key.has_default() and not key.remote_field


def _lacks_value(source: TicketSource, instance: models.Model, using: str) -> bool:
    """Say whether the host's table would refuse a new ticket without a priority."""
    if not lacks_value(source, instance, using=using):
        return False
    return not (_may_update(instance) and source.queryset(using).filter(pk=instance.pk).exists())


def _classify_draft(
    source: TicketSource, instance: models.Model, draft: Prediction, using: str
) -> None:
    try:
        _ask_in_time(source, instance, draft, using)
    except ModelUnavailableError as error:
        # An open breaker and the kill switch were logged once, for all tickets.
        is_logged = isinstance(error, BreakerOpenError | SwitchedOffError)
        level = logging.DEBUG if is_logged else logging.WARNING
        logger.log(level, "A ticket of %s is saved without priority: %s", source.label, error)
        draft.state = State.PENDING
        draft.reason = _WHY_UNANSWERED.get(type(error), Reason.NO_MODEL)


def _ask_in_time(
    source: TicketSource, instance: models.Model, draft: Prediction, using: str
) -> None:
    """Classify a ticket before the deadline; raises ModelUnavailableError where that fails."""
    seconds = get_settings().serving.deadline_seconds
    begun = time.monotonic()
    classifier = get_classifier(seconds)
    if seconds is not None:
        seconds -= time.monotonic() - begun
    text = source.text_of(instance)
    if not text:
        fill_abstained(draft, classifier)
        return
    language = language_for(classifier, source, instance)
    started = time.perf_counter()
    (classification,) = classifier.classify_within(seconds, [text])
    milliseconds = 1000 * (time.perf_counter() - started)
    fill(draft, text, classification, classifier, milliseconds, language=language)
    if suggest_unless_applicable(draft) and not suggest_if_refused(source, instance, draft, using):
        draft.state = State.APPLIED
        before = source.value_of(instance)
        insert_without_if_refused(source, instance, draft, before, using)
        # Last, so that an error leaves the ticket as it was.
        source.set_on(instance, classification.priority)


def _drafted(source: TicketSource, instance: models.Model) -> Prediction | None:
    """Return what was predicted for this object, also when it is inserted a second time.

    An object that is saved again after a rollback, or as a new row, still has the predicted
    priority. Without a prediction of its own that row would look like a person's decision.
    """
    draft = DRAFTS.get(instance)
    if draft is None or not is_as_drafted(source, instance, draft):
        return None
    if draft.pk is not None:
        draft = again(draft)
        DRAFTS.put(instance, draft)
    return draft


def _pending(source: TicketSource, value: Any) -> Prediction | None:
    return _request(source, value) if source.is_unset(value) else None


def _request(source: TicketSource, value: Any) -> Prediction:
    """Return a pending prediction about a new ticket that has a host value."""
    enabled = get_settings().enabled
    mode = source.effective_mode
    return Prediction(
        mode=audit.draw(mode) if enabled else mode,
        value_before=source.as_json(value),
        state=State.PENDING,
        reason=Reason.QUEUED if enabled else Reason.DISABLED,
    )


def _unset_unrecorded(
    source: TicketSource, instance: models.Model, prediction: Prediction | None, using: str
) -> None:
    """Unset a priority whose prediction is not stored: it would look like a person's decision."""
    if prediction is None or prediction.state != State.APPLIED:
        return
    message = "A new %s keeps a priority without a prediction"
    with contain_errors(using, message, source.label), savepoint(using):
        source.reset(instance, source.clean(prediction.value_before), using=using)
