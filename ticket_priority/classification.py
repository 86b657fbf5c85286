"""Use case: tickets, new or old, become predictions, and predictions the host's priority."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db import models, router, transaction
from django.utils import timezone

from ticket_priority.classifiers import get_classifier
from ticket_priority.conf import get_settings
from ticket_priority.decisions import (
    Reason,
    State,
    announce,
    answers_of,
    fill,
    fill_abstained,
    priority_of,
    save_about,
    savepoint,
    supersede_pending,
)
from ticket_priority.exceptions import ModelUnavailableError
from ticket_priority.interfaces import Classification
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource, get_source
from ticket_priority.text import normalise

logger = logging.getLogger(__name__)

_DRAFT = "_ticket_priority_draft"


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
    """Sync mode: set the priority in memory, so that the first INSERT holds it. Never raises."""
    if source.effective_mode != "sync" or not get_settings().enabled:
        return
    value = None
    try:
        value = source.value_of(instance)
        if not source.is_unset(value):
            return
        draft = Prediction(mode="sync", value_before=value)
        with savepoint(using):
            _classify_draft(source, instance, draft)
    except Exception:
        # Whatever goes wrong in a model, the ticket must be saved.
        logger.exception("A ticket of %s is saved without priority", source.label)
        draft = Prediction(
            mode="sync", value_before=value, state=State.PENDING, reason=Reason.MODEL_ERROR
        )
    instance.__dict__[_DRAFT] = draft


def record_after_insert(
    source: TicketSource, instance: models.Model, using: str
) -> Prediction | None:
    """Store the prediction of a new ticket, in the ticket's own transaction. Never raises.

    Returns None when there is nothing to predict: a person set the priority.
    """
    draft: Prediction | None = instance.__dict__.pop(_DRAFT, None)
    try:
        prediction = draft or _pending_draft(source, instance)
        if prediction is None:
            return None
        with savepoint(using):
            save_about(source, instance, prediction)
    except Exception:
        # The ticket is written; `classify_tickets` finds it by its unset priority.
        logger.exception("The prediction of a new %s could not be stored", source.label)
        return None
    if prediction.state == State.APPLIED:
        announce(instance, prediction)
    return prediction


def _classify_draft(source: TicketSource, instance: models.Model, draft: Prediction) -> None:
    text = source.text_of(instance)
    if not text:
        fill_abstained(draft)
        return
    try:
        classifier = get_classifier()
    except ModelUnavailableError as error:
        logger.warning("A ticket of %s is saved without priority: %s", source.label, error)
        draft.state, draft.reason = State.PENDING, Reason.NO_MODEL
        return
    started = time.perf_counter()
    (classification,) = classifier.classify([text])
    fill(draft, text, classification, classifier, 1000 * (time.perf_counter() - started))
    draft.state = State.APPLIED
    # Last, so that an error leaves the ticket as it was.
    source.set_on(instance, classification.priority)


def _pending_draft(source: TicketSource, instance: models.Model) -> Prediction | None:
    enabled = get_settings().enabled
    if source.effective_mode == "sync" and enabled:
        return None
    value = source.value_of(instance)
    if not source.is_unset(value):
        return None
    reason = Reason.QUEUED if enabled else Reason.DISABLED
    return Prediction(
        mode=source.effective_mode, value_before=value, state=State.PENDING, reason=reason
    )


def classify_instances(
    instances: Iterable[models.Model], *, mode: str | None = None
) -> list[Prediction]:
    """Classify saved tickets of one model again or for the first time, and store predictions.

    A priority that a person set stays; the prediction is then kept as a suggestion. `mode`
    defaults to the source's; "suggest" writes no ticket. Raises ModelUnavailableError.
    """
    tickets = list(instances)
    if not tickets:
        return []
    source = get_source(type(tickets[0]))
    using = tickets[0]._state.db or router.db_for_write(type(tickets[0]))
    classifier = get_classifier()
    mode = mode or source.effective_mode
    decided_by_person = _decided_by_person(source, tickets, using)
    texts = [source.text_of(ticket) for ticket in tickets]
    predictions = []
    for ticket, text, answer in zip(tickets, texts, answers_of(classifier, texts), strict=True):
        prediction = Prediction(mode=mode, value_before=source.value_of(ticket), attempts=1)
        if isinstance(answer, Exception):
            prediction.state, prediction.reason = State.FAILED, Reason.MODEL_ERROR
        elif answer is None:
            fill_abstained(prediction)
        else:
            fill(prediction, text, answer[0], classifier, answer[1])
        by_person = str(ticket.pk) in decided_by_person
        predictions.append(_store(source, ticket, prediction, by_person=by_person, using=using))
    return predictions


def _store(
    source: TicketSource,
    ticket: models.Model,
    prediction: Prediction,
    *,
    by_person: bool,
    using: str,
) -> Prediction:
    prediction.decided_at = timezone.now()
    with transaction.atomic(using=using):
        if prediction.state == State.PENDING:
            if by_person or _confirmed_meanwhile(source, ticket, prediction.value_before, using):
                prediction.state, prediction.reason = State.SUGGESTED, Reason.PERSON_DECIDED
            elif prediction.mode == "suggest":
                prediction.state = State.SUGGESTED
            elif source.compare_and_set(
                ticket.pk,
                before=prediction.value_before,
                priority=priority_of(prediction),
                using=using,
            ):
                prediction.state = State.APPLIED
            else:
                prediction.state, prediction.reason = State.SUPERSEDED, Reason.PERSON_DECIDED
        if prediction.state != State.FAILED:
            supersede_pending(source, ticket, Reason.REPLACED, using)
        save_about(source, ticket, prediction)
    if prediction.state == State.APPLIED:
        source.set_on(ticket, priority_of(prediction))
    announce(ticket, prediction)
    return prediction


def backfill(
    source: TicketSource,
    *,
    dry_run: bool = False,
    limit: int | None = None,
    using: str | None = None,
) -> Iterator[tuple[Counter[str], int]]:
    """Classify every undecided ticket of a source; yield counts and size of each batch.

    Tickets that the active version has already answered are passed over, so a run that was
    stopped is resumed by running again. Counts have the keys of `Prediction.State`, the class
    names, and `skipped`. With `dry_run` nothing is written. Raises ModelUnavailableError.
    """
    version = get_classifier().model_version
    rows = source.unset_rows(using).order_by("pk")
    last_pk: Any = None
    left = limit
    while left is None or left > 0:
        size = get_settings().batch_size if left is None else min(get_settings().batch_size, left)
        page = list(rows.filter(pk__gt=last_pk)[:size] if last_pk is not None else rows[:size])
        if not page:
            return
        last_pk = page[-1].pk
        left = None if left is None else left - len(page)
        answered = set(
            Prediction.objects.for_keys(source.model, [ticket.pk for ticket in page])
            .filter(model_version=version)
            .values_list("object_id", flat=True)
        )
        fresh = [ticket for ticket in page if str(ticket.pk) not in answered]
        counts = Counter({"skipped": len(page) - len(fresh)})
        if dry_run:
            texts = [text for text in map(source.text_of, fresh) if text]
            counts.update(answer.label for answer in get_classifier().classify(texts))
        else:
            for prediction in classify_instances(fresh):
                counts[prediction.state] += 1
                if prediction.priority is not None:
                    counts[Priority(prediction.priority).slug] += 1
        yield counts, len(page)


def _confirmed_meanwhile(
    source: TicketSource, ticket: models.Model, before: Any, using: str
) -> bool:
    """Whether a person confirmed the value that is there; compare-and-set cannot see that."""
    if source.is_unset(before):
        return False
    source.lock(ticket.pk, using=using)
    return Override.objects.using(using).for_keys(source.model, [ticket.pk]).exists()


def _decided_by_person(
    source: TicketSource, tickets: Sequence[models.Model], using: str
) -> set[str]:
    keys = [ticket.pk for ticket in tickets]
    decided = set(
        Override.objects.using(using)
        .for_keys(source.model, keys)
        .values_list("object_id", flat=True)
    )
    applied = dict(
        Prediction.objects.using(using)
        .for_keys(source.model, keys)
        .filter(state=State.APPLIED)
        .order_by("pk")
        .values_list("object_id", "priority")
    )
    for ticket in tickets:
        value = source.value_of(ticket)
        key = str(ticket.pk)
        if not source.is_unset(value) and source.to_priority(value) != applied.get(key):
            decided.add(key)
    return decided
