"""Classify saved tickets, again or for the first time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import models, router, transaction
from django.utils import timezone

from ticket_priority.classifiers import get_classifier, get_classifier_in_request
from ticket_priority.conf import get_settings
from ticket_priority.db import pages_by_key
from ticket_priority.exceptions import ModelFailingError
from ticket_priority.models import Override, Prediction, plugin_database
from ticket_priority.predictions import audit, copies
from ticket_priority.predictions.containment import contain_errors
from ticket_priority.predictions.outcome import (
    Reason,
    State,
    TicketAnswer,
    after_apply,
    all_failed,
    announce,
    answers_about,
    fill,
    fill_abstained,
    save_about,
    suggest_unless_applicable,
    supersede_pending,
    write_if_unchanged,
)
from ticket_priority.predictions.refusals import settle_or_suggest
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource, get_source
from ticket_priority.sources.column import defaults_called_once
from ticket_priority.sources.keys import ticket_key


def classify_instances(
    instances: Iterable[models.Model], *, mode: str | None = None, bounded: bool = False
) -> list[Prediction]:
    """Classify saved tickets of one model, and store the predictions.

    That about a ticket which was deleted meanwhile is returned, but not stored. In a request pass
    `bounded`: the model has DEADLINE_MS for each ticket.

    A priority that a person set stays, and the prediction becomes a suggestion. `mode` defaults to
    the source's; "suggest" writes no ticket. Predictions about undecided tickets of the audit slice
    are held back. One that cannot be stored is logged, and returned as failed. Raises
    ModelUnavailableError.
    """
    tickets = list(instances)
    if not tickets:
        return []
    source = get_source(type(tickets[0]))
    using = tickets[0]._state.db or router.db_for_write(type(tickets[0]))
    classifier = get_classifier_in_request() if bounded else get_classifier()
    mode = mode or source.effective_mode
    decided_by_person = _decided_by_person(source, tickets)
    keys = [ticket.pk for ticket in tickets]
    recorded = Override.objects.using(plugin_database()).keys_among(source.model, keys)
    held_back = audit.audited_keys(source.model, keys) - recorded
    answers: list[TicketAnswer] = []
    with suppress(ModelFailingError), classifier.breaker.attempt():
        answers = answers_about(source, classifier, tickets, bounded=bounded)
        if all_failed(asked.answer for asked in answers):
            raise ModelFailingError("The breaker counts it; each ticket is stored as failed.")
    predictions = []
    for ticket, asked in zip(tickets, answers, strict=True):
        prediction = Prediction(
            mode=audit.MODE if ticket_key(ticket) in held_back else mode,
            value_before=source.as_json(source.value_of(ticket)),
            attempts=1,
        )
        if isinstance(asked.answer, Exception):
            prediction.state, prediction.reason = State.FAILED, Reason.MODEL_ERROR
        elif asked.answer is None:
            fill_abstained(prediction, classifier)
        else:
            answer, milliseconds = asked.answer
            fill(prediction, asked.text, answer, classifier, milliseconds, language=asked.language)
        by_person, is_stored = ticket_key(ticket) in decided_by_person, False
        # The others go on.
        with contain_errors(using, "The prediction about a %s is not stored", source.label):
            _store(source, ticket, prediction, by_person=by_person, using=using)
            is_stored = True
        if not is_stored:
            prediction.state = State.FAILED
        predictions.append(prediction)
    return predictions


def _store(
    source: TicketSource,
    ticket: models.Model,
    prediction: Prediction,
    *,
    by_person: bool,
    using: str,
) -> None:
    prediction.decided_at = timezone.now()
    said = prediction.state, prediction.reason

    def store() -> None:
        prediction.pk = None
        if prediction.reason != Reason.REFUSED:
            prediction.state, prediction.reason = said
        with transaction.atomic(using=using):
            # Until the commit nobody can delete the ticket, which would leave the new row behind.
            # It also orders this and a person's decision at the same moment.
            try:
                source.lock(ticket.pk, using=using)
            except ObjectDoesNotExist:
                prediction.state, prediction.reason = State.ABSTAINED, Reason.TICKET_GONE
                return
            if prediction.state == State.PENDING:
                if prediction.reason != Reason.AUDIT and (
                    by_person or _decided_meanwhile(source, ticket, prediction.value_before)
                ):
                    prediction.state, prediction.reason = State.SUGGESTED, Reason.PERSON_DECIDED
                elif suggest_unless_applicable(prediction):
                    write_if_unchanged(source, ticket, prediction, using)
                    if prediction.state == State.APPLIED:
                        after_apply(source, ticket, prediction, using)
            if prediction.state != State.FAILED:
                supersede_pending(source, ticket, Reason.REPLACED)
            save_about(source, ticket, prediction)

    settle_or_suggest(source, ticket, prediction, store, using)
    announce(ticket, prediction)


def backfill(
    source: TicketSource,
    *,
    dry_run: bool = False,
    limit: int | None = None,
    using: str | None = None,
) -> Iterator[tuple[Counter[str], int]]:
    """Classify every undecided ticket of a source; yield counts and size of each batch.

    Skips tickets whose default a person chose, and those that the active version has answered, so
    running again resumes a run that was stopped. Counts have the keys of `Prediction.State`, the
    class names, `skipped`, and `refused` of the suggested ones. With `dry_run` nothing is written.
    Raises ModelUnavailableError.
    """
    version = get_classifier().model_version
    size = get_settings().serving.batch_size
    for page in pages_by_key(source.unset_rows(using), size, limit=limit):
        keys, alias = [ticket.pk for ticket in page], plugin_database()
        predictions = Prediction.objects.using(alias).for_keys(source.model, keys)
        answered = predictions.filter(model_version=version).values_list("object_id", flat=True)
        overrides = Override.objects.using(alias).for_keys(source.model, keys)
        # A person may have decided for a value that otherwise means unset.
        chosen = {
            ticket_key(ticket)
            for ticket in page
            if source.meaning_of(source.value_of(ticket)) is not None
        }.intersection(overrides.values_list("object_id", flat=True))
        passed_over = chosen.union(answered)
        fresh = [ticket for ticket in page if ticket_key(ticket) not in passed_over]
        counts = Counter({"skipped": len(page) - len(fresh)})
        if dry_run:
            for asked in answers_about(source, get_classifier(), fresh):
                if isinstance(asked.answer, Exception):
                    counts[State.FAILED] += 1
                elif asked.answer is not None:
                    counts[asked.answer[0].label] += 1
        else:
            for prediction in classify_instances(fresh):
                counts[prediction.state] += 1
                if prediction.reason == Reason.REFUSED:
                    counts[Reason.REFUSED] += 1
                if prediction.priority is not None:
                    counts[Priority(prediction.priority).slug] += 1
        yield counts, len(page)


def _decided_meanwhile(source: TicketSource, ticket: models.Model, before: Any) -> bool:
    """Say whether a person chose the stored value, which compare-and-set cannot see."""
    if before is None:
        return False
    overrides = Override.objects.using(plugin_database())
    return overrides.for_keys(source.model, [ticket.pk]).exists()


@defaults_called_once()
def _decided_by_person(source: TicketSource, tickets: Sequence[models.Model]) -> set[str]:
    """Return the keys of tickets with an Override, or with a value that was not predicted."""
    keys = [ticket.pk for ticket in tickets]
    decided = Override.objects.using(plugin_database()).keys_among(source.model, keys)
    # What was copied may be a person's word as well: it is no label, and no model changes it.
    predictions = Prediction.objects.using(plugin_database()).exclude(mode=copies.MODE)
    applied = predictions.applied_values(source.model, keys)
    begun = predictions.values_at_creation(source, keys)
    for ticket in tickets:
        value, key = source.value_of(ticket), ticket_key(ticket)
        ours = {source.to_host_value(priority) for priority in applied[key]}
        is_as_begun = source.as_json(value) in begun[key]
        if not source.is_unset(value) and value not in ours and not is_as_begun:
            decided.add(key)
    return decided
