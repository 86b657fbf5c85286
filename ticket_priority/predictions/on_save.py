"""Use case: new tickets become predictions, and predictions the host's priority."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any, Final

from django.db import models, transaction
from django.db.models.base import ModelState
from django.db.models.expressions import DatabaseDefault

from ticket_priority.classifiers import get_classifier
from ticket_priority.conf import get_settings
from ticket_priority.db import SAVE_SECONDS, after_commit, needs_rollback, retry_on_deadlock
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
from ticket_priority.predictions.outcome import (
    DRAFT,
    Reason,
    State,
    announce_new,
    applied_to,
    bears,
    fill,
    fill_abstained,
    language_for,
    priority_of,
    save_about,
    savepoint,
    suggest_unless_applicable,
)
from ticket_priority.sources.base import TicketSource

logger = logging.getLogger(__name__)

_WHY_UNANSWERED: Final = {
    ModelTimeoutError: Reason.DEADLINE,
    ModelOverloadedError: Reason.OVERLOADED,
    BreakerOpenError: Reason.BREAKER_OPEN,
    SwitchedOffError: Reason.DISABLED,
}


def classify(texts: Sequence[str]) -> list[Classification]:
    """Classify raw texts with the active model, in their order; nothing is stored.

    Raises ModelUnavailableError when no model can answer.
    """
    return classify_with_version(texts)[1]


def classify_with_version(texts: Sequence[str]) -> tuple[ModelVersion, list[Classification]]:
    """Classify raw texts like `classify()`, and name the model version that answered."""
    classifier = get_classifier()
    return classifier.model_version, classifier.classify([normalise(text) for text in texts])


def classify_before_insert(source: TicketSource, instance: models.Model, using: str) -> None:
    """Sync mode: set the priority in memory, so that the first INSERT holds it.

    Raises only what loses the transaction, see `transactions.needs_rollback`.
    """
    if source.effective_mode != "sync" or not get_settings().enabled or _may_update(instance):
        return
    value, mode = None, "sync"
    try:
        value = source.value_of(instance)
        if not source.is_unset(value):
            return
        mode = audit.draw(mode)
        draft = Prediction(mode=mode, value_before=_storable(value))
        with savepoint(using):
            _classify_draft(source, instance, draft)
    except Exception as error:
        if needs_rollback(using):
            raise
        # Whatever goes wrong in a model, the ticket must be saved.
        logger.error(
            "A ticket of %s is saved without priority: %s", source.label, redacted_traceback(error)
        )
        draft = Prediction(
            mode=mode,
            value_before=_storable(value),
            state=State.PENDING,
            reason=Reason.MODEL_ERROR,
        )
    instance.__dict__[DRAFT] = draft


def record_after_insert(
    source: TicketSource,
    instance: models.Model,
    using: str,
    *,
    tell: Callable[[], None] | None = None,
) -> Prediction | None:
    """Store the prediction of a new ticket, in the ticket's own transaction.

    `tell` is called beside a pending one, in the same transaction, to fetch a worker. Tickets that
    live in another database than the plugin's rows get theirs after the commit. Returns None when
    there is nothing to predict: a person set the priority. Raises only what loses the transaction,
    and so the ticket.
    """
    prediction = None
    try:
        prediction = _drafted(source, instance) or _pending(source, instance)
        if prediction is None:
            return None
        if using != plugin_database():
            after_commit(partial(_store_apart, source, instance, prediction, using), using=using)
        else:
            store = partial(_store_new, source, instance, prediction, using, tell)
            retry_on_deadlock(store, using=using, seconds=SAVE_SECONDS)
            if prediction.state == State.PENDING:
                instance.__dict__[DRAFT] = prediction
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "The prediction of a new %s could not be stored: %s",
            source.label,
            redacted_traceback(error),
        )
        _take_back(source, instance, prediction, using)
        return None
    if prediction.state == State.APPLIED:
        applied_to(source, instance, prediction, using, at_creation=True)
    announce_new(instance, prediction)
    return prediction


def reassert_after_update(source: TicketSource, instance: models.Model, using: str) -> None:
    """Write a prediction anew that a save of the new ticket's own object has just written over.

    A host that saves a ticket twice in a row, as it was before the worker applied a prediction in
    between, puts the old value back. Raises only what loses the transaction.
    """
    draft = instance.__dict__.get(DRAFT)
    if draft is None or draft.pk is None or draft.state != State.PENDING:
        return
    try:
        if not source.is_unset(source.value_of(instance)):
            return
        with savepoint(using):
            _reassert(source, instance, draft, using)
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "A prediction may have been written over by a save of %s: %s",
            source.label,
            redacted_traceback(error),
        )


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

    Django cannot name a partial that fails in `on_commit`, and would raise over that.
    """
    try:
        save_about(source, instance, prediction)
    except Exception as error:
        logger.error(
            "The prediction of a new %s could not be stored: %s",
            source.label,
            redacted_traceback(error),
        )
        _take_back(source, instance, prediction, using)


def _store_new(
    source: TicketSource,
    instance: models.Model,
    prediction: Prediction,
    using: str,
    tell: Callable[[], None] | None,
) -> None:
    if tell is not None and prediction.needs_worker:
        try:
            # Both or neither, and in autocommit one commit for the two.
            with transaction.atomic(using=using):
                save_about(source, instance, prediction)
                tell()
        except Exception as error:
            if needs_rollback(using):
                raise
            logger.error(
                "No worker could be told of a new %s; the sweep will: %s",
                source.label,
                redacted_traceback(error),
            )
            prediction.pk, prediction._state = None, ModelState()
        else:
            return
    with savepoint(using):
        save_about(source, instance, prediction)


def _may_update(instance: models.Model) -> bool:
    """Whether saving may turn out an UPDATE: a key was given that Django did not make up."""
    key = instance._meta.pk
    return instance.pk is not None and not key.has_default() and not key.remote_field


def _classify_draft(source: TicketSource, instance: models.Model, draft: Prediction) -> None:
    try:
        _ask_in_time(source, instance, draft)
    except ModelUnavailableError as error:
        # Who opened the breaker or the switch has said so, for all the tickets to come.
        told = isinstance(error, BreakerOpenError | SwitchedOffError)
        level = logging.DEBUG if told else logging.WARNING
        logger.log(level, "A ticket of %s is saved without priority: %s", source.label, error)
        draft.state = State.PENDING
        draft.reason = _WHY_UNANSWERED.get(type(error), Reason.NO_MODEL)


def _ask_in_time(source: TicketSource, instance: models.Model, draft: Prediction) -> None:
    """Have the model answer before the deadline; raises ModelUnavailableError where it cannot."""
    limit = get_settings().serving.deadline_ms
    seconds = None if limit is None else limit / 1000
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
    if suggest_unless_applicable(draft):
        draft.state = State.APPLIED
        # Last, so that an error leaves the ticket as it was.
        source.set_on(instance, classification.priority)


def _drafted(source: TicketSource, instance: models.Model) -> Prediction | None:
    """Return what was predicted for this object, also when it is inserted a second time.

    An object that is saved again after a rollback, or copied to a new row, still bears the
    predicted priority; without a prediction of its own that row would pass for a person's word.
    """
    draft: Prediction | None = instance.__dict__.get(DRAFT)
    if draft is None or not bears(source, instance, draft):
        return None
    if draft.pk is not None:
        draft = copy(draft)
        draft.pk, draft._state = None, ModelState()
        instance.__dict__[DRAFT] = draft
    return draft


def _pending(source: TicketSource, instance: models.Model) -> Prediction | None:
    value = source.value_of(instance)
    if not source.is_unset(value):
        return None
    enabled = get_settings().enabled
    mode = source.effective_mode
    return Prediction(
        mode=audit.draw(mode) if enabled else mode,
        value_before=_storable(value),
        state=State.PENDING,
        reason=Reason.QUEUED if enabled else Reason.DISABLED,
    )


def _storable(value: Any) -> Any:
    """A database default is known only once the row is there; until then it is None."""
    return None if isinstance(value, DatabaseDefault) else value


def _take_back(
    source: TicketSource, instance: models.Model, prediction: Prediction | None, using: str
) -> None:
    """Unset a priority that has no prediction to show for it: it would pass for a person's."""
    if prediction is None or prediction.state != State.APPLIED:
        return
    try:
        with savepoint(using):
            source.reset(instance, prediction.value_before, using=using)
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "A new %s keeps a priority without a prediction: %s",
            source.label,
            redacted_traceback(error),
        )
