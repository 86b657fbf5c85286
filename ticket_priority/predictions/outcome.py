"""Steps that on_save, outbox, reclassify and overrides share: classify, fill, store, announce."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.db import models
from django.db.models.expressions import DatabaseDefault
from django.dispatch import Signal
from django.utils import timezone

from ticket_priority.classifiers import ActiveClassifier
from ticket_priority.db import after_commit
from ticket_priority.exceptions import ModelUnavailableError
from ticket_priority.logs import redacted_traceback
from ticket_priority.ml.text.normalisation import text_hash
from ticket_priority.ml.types import Classification
from ticket_priority.models import ABOUT_TICKETS, Prediction, plugin_database
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions import audit
from ticket_priority.predictions.containment import contain_errors, savepoint
from ticket_priority.predictions.refusals import suggest_if_refused
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_missing, priority_predicted
from ticket_priority.sources import PriorityChange, TicketSource
from ticket_priority.sources.keys import ticket_key
from ticket_priority.sources.notes import Notes

logger = logging.getLogger(__name__)

_FORGOTTEN_AT_ONCE: Final = 1000

State, Reason = Prediction.State, Prediction.Reason
DRAFTS: Final = Notes[Prediction]()
"""The first prediction of each newly created ticket object."""

Answer = tuple[Classification, float] | Exception | None
"""A classification and its milliseconds, or the error, or None for an empty text."""


@dataclass(frozen=True, slots=True)
class TicketAnswer:
    """The text and language of a ticket, and the model's answer."""

    text: str
    language: str
    answer: Answer


def answers_about(
    source: TicketSource,
    classifier: ActiveClassifier,
    tickets: Sequence[models.Model],
    *,
    bounded: bool = False,
) -> list[TicketAnswer]:
    """Classify tickets; an error while reading or classifying one becomes its answer.

    Bounded, the model has DEADLINE_MS for each. Raises ModelUnavailableError, as where that passed.
    """
    read: list[tuple[str, str]] = []
    errors: dict[int, Exception] = {}
    for place, ticket in enumerate(tickets):
        try:
            read.append((source.text_of(ticket), language_for(classifier, source, ticket)))
        except Exception as error:
            # A ticket that an adapter cannot read must not hold up the others.
            logger.error("A %s cannot be read: %s", source.label, redacted_traceback(error))
            read.append(("", ""))
            errors[place] = error
    answers = answers_of(classifier, [text for text, _language in read], bounded=bounded)
    return [
        TicketAnswer(text, language, errors.get(place, answer))
        for place, ((text, language), answer) in enumerate(zip(read, answers, strict=True))
    ]


def language_for(classifier: ActiveClassifier, source: TicketSource, ticket: models.Model) -> str:
    """Return the ticket's language if certificates need it; reading it may take a query."""
    return "" if classifier.rule.targets is None else source.language_of(ticket)


def answers_of(
    classifier: ActiveClassifier, texts: Sequence[str], *, bounded: bool = False
) -> list[Answer]:
    """Classify texts in one batch; one by one if that fails, so that only the cause fails.

    Bounded as in `answers_about`.
    """
    filled = [index for index, text in enumerate(texts) if text]
    answers: list[Answer] = [None] * len(texts)
    try:
        timed: Iterable[Answer] = _timed(classifier, [texts[index] for index in filled], bounded)
    except ModelUnavailableError:
        raise
    except Exception as error:
        logger.error(
            "A batch of %d tickets failed, trying them one by one: %s",
            len(filled),
            redacted_traceback(error),
        )
        timed = [_timed_alone(classifier, texts[index], bounded) for index in filled]
    for index, answer in zip(filled, timed, strict=True):
        answers[index] = answer
    return answers


def _timed(
    classifier: ActiveClassifier, texts: list[str], bounded: bool
) -> list[tuple[Classification, float]]:
    started = time.perf_counter()
    results = classifier.ask(texts) if bounded else classifier.classify(texts)
    milliseconds = 1000 * (time.perf_counter() - started) / max(len(texts), 1)
    return [(result, milliseconds) for result in results]


def _timed_alone(classifier: ActiveClassifier, text: str, bounded: bool) -> Answer:
    try:
        return _timed(classifier, [text], bounded)[0]
    except ModelUnavailableError:
        raise
    except Exception as error:
        return error


def all_failed(answers: Iterable[Answer]) -> bool:
    """Say whether the model failed at every text that it was asked about."""
    asked = [answer for answer in answers if answer is not None]
    return bool(asked) and all(isinstance(answer, Exception) for answer in asked)


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

    In the mode "suggest" nothing is applied, so the reason is OK without a certificate.
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
    """Return whether an answer may be applied; make it a suggestion if not."""
    if prediction.mode != "suggest" and prediction.reason == Reason.OK:
        return True
    prediction.state = State.SUGGESTED
    return False


def fill_abstained(prediction: Prediction, classifier: ActiveClassifier) -> None:
    """Mark a prediction as abstained: the ticket has no text."""
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
    """Insert a prediction about this ticket, its newest; raises DatabaseError."""
    using = plugin_database()
    prediction.content_type = content_type_of(source.model)
    prediction.object_id = ticket_key(instance)
    prediction.is_newest = True
    # One that comes with the ticket itself, without an attempt, is the first.
    marked = Prediction.objects.using(using).for_instance(instance).filter(is_newest=True)
    # The UPDATE waits for another writer, whose new row it does not see on PostgreSQL.
    has_replaced = not prediction.attempts or marked.update(is_newest=False)
    prediction.save(using=using, force_insert=True)
    if not has_replaced:
        marked.filter(pk__lt=prediction.pk).update(is_newest=False)


def priority_of(prediction: Prediction) -> Priority:
    """Return the predicted class; raises ValueError where there is none yet."""
    if prediction.priority is None:
        raise ValueError("The prediction has not been classified.")
    return Priority(prediction.priority)


def saved_value(source: TicketSource, instance: models.Model, using: str) -> Any:
    """Return the host value that was saved; read from the row where it was an expression."""
    value = source.value_of(instance)
    if isinstance(value, DatabaseDefault) or not hasattr(value, "resolve_expression"):
        return value
    with savepoint(using):
        rows = source.queryset(using).filter(pk=instance.pk)
        return rows.values_list(source.host_field.attname, flat=True).get()


def is_as_drafted(source: TicketSource, instance: models.Model, draft: Prediction) -> bool:
    """Say whether an object still has the priority that its first prediction gave it, or none."""
    value = source.value_of(instance)
    if draft.state == State.APPLIED:
        return bool(value == source.to_host_value(priority_of(draft)))
    # A class that the host's table asked for is what the draft keeps as the value before.
    return source.is_unset(value) or value == source.clean(draft.value_before)


def supersede_pending(
    source: TicketSource, instance: models.Model, reason: Prediction.Reason
) -> None:
    """Close the pending predictions about a ticket, so that no worker applies them.

    A person's decision leaves those of the audit pending: it is compared with them.
    """
    about = Prediction.objects.using(plugin_database()).for_keys(source.model, [instance.pk])
    pending = about.filter(state=State.PENDING)
    if reason == Reason.PERSON_DECIDED:
        pending = pending.exclude(mode=audit.MODE)
    pending.update(state=State.SUPERSEDED, reason=reason, decided_at=timezone.now())


def announce(instance: models.Model, prediction: Prediction) -> None:
    """Send the signal for a decided prediction, unless it is held back or the ticket is gone."""
    if prediction.reason in (Reason.AUDIT, Reason.TICKET_GONE):
        return
    send_after_commit(
        priority_predicted, sender=type(instance), instance=instance, prediction=prediction
    )


def announce_new(instance: models.Model, prediction: Prediction) -> None:
    """Send the signal for a new ticket's prediction, or for the lack of one."""
    if prediction.state in (State.APPLIED, State.SUGGESTED):
        announce(instance, prediction)
    elif priority_missing.has_listeners(type(instance)):
        send_after_commit(
            priority_missing, sender=type(instance), instance=instance, prediction=prediction
        )


def send_after_commit(signal: Signal, **named: Any) -> None:
    """Send a signal after the commit: a receiver's database error must not undo the rows."""
    after_commit(partial(signal.send_robust, **named), using=plugin_database())


def write_if_unchanged(
    source: TicketSource, instance: models.Model, prediction: Prediction, using: str
) -> None:
    """Write a prediction to the ticket's row, and supersede it if the row's value has changed.

    One that the host does not take becomes a suggestion.
    """
    if suggest_if_refused(source, instance, prediction, using):
        return
    before = source.clean(prediction.value_before)
    priority = priority_of(prediction)
    if source.compare_and_set(instance.pk, before=before, priority=priority, using=using):
        prediction.state, prediction.reason = State.APPLIED, Reason.OK
    elif source.queryset(using).filter(pk=instance.pk).exists():
        prediction.state, prediction.reason = State.SUPERSEDED, Reason.PERSON_DECIDED
    else:
        prediction.state, prediction.reason = State.ABSTAINED, Reason.TICKET_GONE


def after_apply(
    source: TicketSource,
    instance: models.Model,
    prediction: Prediction,
    using: str,
    *,
    at_creation: bool = False,
) -> None:
    """Update object and history after a prediction was written to the ticket's row."""
    before = source.clean(prediction.value_before)
    source.set_on(instance, priority_of(prediction))
    after = source.value_of(instance)
    if after != before:
        change = PriorityChange(before, after, via=prediction.mode, at_creation=at_creation)
        write_history(source, instance, change, using)


def write_history(
    source: TicketSource, instance: models.Model, change: PriorityChange, using: str
) -> None:
    """Write a change to the host's history; errors as in `contain_errors`."""
    message = "The history of a %s lacks a change of its priority"
    with contain_errors(using, message, source.label), savepoint(using):
        source.write_history(instance, change, using=using)


def forget(model: type[models.Model], keys: Sequence[Any]) -> None:
    """Delete the rows about deleted tickets of a model; errors as in `contain_errors`."""
    using = plugin_database()
    message = "Rows about a deleted %s remain, for `manage.py erase_priority_data --gone`"
    for start in range(0, len(keys), _FORGOTTEN_AT_ONCE):
        some = keys[start : start + _FORGOTTEN_AT_ONCE]
        with contain_errors(using, message, model._meta.label), savepoint(using):
            for table in ABOUT_TICKETS:
                table.objects.using(using).for_keys(model, some).erase()
