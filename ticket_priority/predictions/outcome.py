"""The steps that every road to a decided prediction shares."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.db import models, transaction
from django.dispatch import Signal
from django.utils import timezone

from ticket_priority.classifiers import ActiveClassifier
from ticket_priority.db import after_commit, is_open, needs_rollback
from ticket_priority.logs import redacted_traceback
from ticket_priority.ml.text.normalisation import text_hash
from ticket_priority.ml.types import Classification
from ticket_priority.models import ABOUT_TICKETS, Prediction, plugin_database
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions import audit
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_missing, priority_predicted
from ticket_priority.sources.base import PriorityChange, TicketSource

logger = logging.getLogger(__name__)

State, Reason = Prediction.State, Prediction.Reason
DRAFT: Final = "_ticket_priority_draft"
"""Where the object that made a ticket keeps the ticket's first prediction."""

Answer = tuple[Classification, float] | Exception | None
"""A classification and its milliseconds, or the error it met, or None for an empty text."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a ticket the model was asked about, and what came of it."""

    text: str
    language: str
    answer: Answer


def answers_about(
    source: TicketSource, classifier: ActiveClassifier, tickets: Sequence[models.Model]
) -> list[Asked]:
    """Classify tickets: the text and the answer of each, or the error that either met."""
    read: list[tuple[str, str]] = []
    errors: dict[int, Exception] = {}
    for place, ticket in enumerate(tickets):
        try:
            read.append((source.text_of(ticket), language_for(classifier, source, ticket)))
        except Exception as error:
            # One ticket that an adapter cannot read must not keep the others waiting.
            logger.error("A %s cannot be read: %s", source.label, redacted_traceback(error))
            read.append(("", ""))
            errors[place] = error
    answers = answers_of(classifier, [text for text, _language in read])
    return [
        Asked(text, language, errors.get(place, answer))
        for place, ((text, language), answer) in enumerate(zip(read, answers, strict=True))
    ]


def language_for(classifier: ActiveClassifier, source: TicketSource, ticket: models.Model) -> str:
    """Return the ticket's language where certificates ask for it; to read it may take a query."""
    return "" if classifier.rule.targets is None else source.language_of(ticket)


def answers_of(classifier: ActiveClassifier, texts: Sequence[str]) -> list[Answer]:
    """Classify texts: answer and milliseconds for each; None for an empty one; or its error."""
    filled = [index for index, text in enumerate(texts) if text]
    answers: list[Answer] = [None] * len(texts)
    started = time.perf_counter()
    try:
        results = classifier.classify([texts[index] for index in filled])
    except Exception as error:
        logger.error(
            "A batch of %d tickets failed, trying them one by one: %s",
            len(filled),
            redacted_traceback(error),
        )
        for index in filled:
            answers[index] = _answer_alone(classifier, texts[index])
        return answers
    each = 1000 * (time.perf_counter() - started) / max(len(filled), 1)
    for index, result in zip(filled, results, strict=True):
        answers[index] = (result, each)
    return answers


def _answer_alone(
    classifier: ActiveClassifier, text: str
) -> tuple[Classification, float] | Exception:
    started = time.perf_counter()
    try:
        (result,) = classifier.classify([text])
    except Exception as error:
        return error
    return result, 1000 * (time.perf_counter() - started)


def fill(
    prediction: Prediction,
    text: str,
    classification: Classification,
    classifier: ActiveClassifier,
    latency_ms: float,
    *,
    language: str,
) -> None:
    """Write an answer into a pending prediction; its reason is OK where it may be applied.

    What the mode "suggest" never applies needs no certificate, and keeps the reason OK too.
    """
    low, medium, high = classification.probabilities
    prediction.prob_low, prediction.prob_medium, prediction.prob_high = low, medium, high
    prediction.priority = classification.priority
    prediction.confidence = classification.confidence
    prediction.model_version = classifier.model_version
    prediction.latency_ms = latency_ms
    prediction.text_hash = text_hash(text)
    prediction.decided_at = timezone.now()
    prediction.state, prediction.reason = State.PENDING, Reason.OK
    if prediction.mode == audit.MODE:
        prediction.reason = Reason.AUDIT
    elif prediction.mode != "suggest" and not classifier.applies(classification, language):
        prediction.reason = Reason.UNCERTIFIED


def suggest_unless_applicable(prediction: Prediction) -> bool:
    """Make a suggestion of an answer that may not be applied; return whether it may."""
    if prediction.mode != "suggest" and prediction.reason == Reason.OK:
        return True
    prediction.state = State.SUGGESTED
    return False


def fill_abstained(prediction: Prediction, classifier: ActiveClassifier) -> None:
    prediction.state, prediction.reason = State.ABSTAINED, Reason.EMPTY_TEXT
    prediction.model_version = classifier.model_version
    prediction.decided_at = timezone.now()


_STORED = (
    "model_version_id",
    "state",
    "reason",
    "priority",
    "prob_low",
    "prob_medium",
    "prob_high",
    "confidence",
    "latency_ms",
    "text_hash",
    "claim",
    "decided_at",
)


def stored_values(prediction: Prediction) -> dict[str, Any]:
    """Return the columns that deciding changes, ready for `update()`."""
    return {name: getattr(prediction, name) for name in _STORED}


def save_about(source: TicketSource, instance: models.Model, prediction: Prediction) -> None:
    """Insert a prediction as one about this ticket; raises DatabaseError."""
    prediction.content_type = content_type_of(source.model)
    prediction.object_id = str(instance.pk)
    prediction.save(using=plugin_database(), force_insert=True)


def priority_of(prediction: Prediction) -> Priority:
    """Return the predicted class; raises ValueError where there is none yet."""
    if prediction.priority is None:
        raise ValueError("The prediction has not been classified.")
    return Priority(prediction.priority)


def bears(source: TicketSource, instance: models.Model, draft: Prediction) -> bool:
    """Say whether an object still has the priority that its ticket's first prediction left it."""
    value = source.value_of(instance)
    if draft.state == State.APPLIED:
        return bool(value == source.to_host_value(priority_of(draft)))
    return source.is_unset(value)


def supersede_pending(
    source: TicketSource, instance: models.Model, reason: Prediction.Reason
) -> None:
    """Close what is still pending about a ticket, so that no worker applies it.

    A person's decision does not close what the audit compares it with, and what nobody applies.
    """
    about = Prediction.objects.using(plugin_database()).for_keys(source.model, [instance.pk])
    pending = about.filter(state=State.PENDING)
    if reason == Reason.PERSON_DECIDED:
        pending = pending.exclude(mode=audit.MODE)
    pending.update(state=State.SUPERSEDED, reason=reason, decided_at=timezone.now())


def announce(instance: models.Model, prediction: Prediction) -> None:
    """Tell receivers of a decided prediction, unless it is held back."""
    if prediction.reason == Reason.AUDIT:
        return
    send_after_commit(
        priority_predicted, sender=type(instance), instance=instance, prediction=prediction
    )


def announce_new(instance: models.Model, prediction: Prediction) -> None:
    """Tell receivers of a new ticket's prediction, or that the ticket has none to show yet."""
    if prediction.state in (State.APPLIED, State.SUGGESTED):
        announce(instance, prediction)
    elif priority_missing.has_listeners(type(instance)):
        send_after_commit(
            priority_missing, sender=type(instance), instance=instance, prediction=prediction
        )


def send_after_commit(signal: Signal, **named: Any) -> None:
    """Tell receivers once the rows are there: a receiver's database error must not undo them."""
    after_commit(partial(signal.send_robust, **named), using=plugin_database())


def applied_to(
    source: TicketSource,
    instance: models.Model,
    prediction: Prediction,
    using: str,
    *,
    at_creation: bool = False,
) -> None:
    """Follow up on a prediction whose priority has just been written to the ticket's row."""
    before = source.clean(prediction.value_before)
    source.set_on(instance, priority_of(prediction))
    after = source.value_of(instance)
    if after != before:
        change = PriorityChange(before, after, via=prediction.mode, at_creation=at_creation)
        write_history(source, instance, change, using)


def write_history(
    source: TicketSource, instance: models.Model, change: PriorityChange, using: str
) -> None:
    """Tell the host's history of a change; an error there undoes nothing.

    Raises only what loses the transaction, see `transactions.needs_rollback`.
    """
    try:
        with savepoint(using):
            source.write_history(instance, change, using=using)
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "The history of a %s lacks a change of its priority: %s",
            source.label,
            redacted_traceback(error),
        )


def savepoint(using: str) -> AbstractContextManager[Any]:
    """Contain a database error, where there is a transaction that it would break."""
    return transaction.atomic(using=using) if is_open(using) else nullcontext()


def forget(instance: models.Model) -> None:
    """Delete what is stored about a ticket that is being deleted.

    Raises only what loses the transaction.
    """
    using = plugin_database()
    try:
        with savepoint(using):
            for table in ABOUT_TICKETS:
                table.objects.using(using).for_instance(instance).delete()
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "Rows about a deleted %s were left, for `manage.py erase_priority_data --gone`: %s",
            type(instance)._meta.label,
            redacted_traceback(error),
        )
