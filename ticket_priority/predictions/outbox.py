"""Decide pending predictions, and apply each exactly once.

Rows are always locked ticket first, prediction second, so that a worker and a person who change
the same ticket cannot deadlock.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

from django.contrib.contenttypes.models import ContentType
from django.db import connections, models, router, transaction
from django.utils import timezone

from ticket_priority.classifiers import (
    ActiveClassifier,
    get_classifier,
    get_classifier_in_request,
)
from ticket_priority.conf import get_settings
from ticket_priority.db import retry_on_deadlock
from ticket_priority.exceptions import ModelFailingError, ModelUnavailableError, SourceError
from ticket_priority.models import Override, Prediction, PredictionQuerySet, plugin_database
from ticket_priority.predictions.containment import contain_errors
from ticket_priority.predictions.outcome import (
    Reason,
    State,
    after_apply,
    all_failed,
    announce,
    answers_about,
    fill,
    fill_abstained,
    stored_values,
    suggest_unless_applicable,
    write_if_unchanged,
)
from ticket_priority.predictions.refusals import settle_or_suggest
from ticket_priority.queues import has_workers
from ticket_priority.sources import TicketSource, get_source
from ticket_priority.sources.column import defaults_called_once

logger = logging.getLogger(__name__)


def drain(*, most: float = math.inf) -> int:
    """Classify pending predictions in batches until none is left; return how many were decided.

    No more than `most` are classified.
    Any number of workers may drain at once. A batch is claimed, classified without holding a lock,
    and applied ticket by ticket, except where a person has decided meanwhile.
    """
    options = get_settings()
    decided = 0
    if not options.enabled:
        return decided
    _give_up_on_poison()
    while most > 0 and _pending_exists():
        try:
            classifier = get_classifier() if has_workers() else get_classifier_in_request()
            with classifier.breaker.attempt():
                claimed = _claim(int(min(options.serving.batch_size, most)))
                for was_decided in _decide_claimed(claimed, classifier):
                    decided += was_decided
        except ModelUnavailableError as error:
            logger.warning("Pending tickets wait: %s", error)
            break
        if not claimed:
            break
        most -= len(claimed)
    return decided


@defaults_called_once()
def retry(predictions: PredictionQuerySet) -> tuple[int, int]:
    """Make failed predictions pending again; return how many were, and how many were not.

    Not retried are those whose ticket had a priority when it was classified, has a newer
    prediction, or was decided by a person.
    """
    failed = list(predictions.filter(state=State.FAILED).order_by("pk"))
    ready: list[int] = []
    for source, rows in _by_source(failed):
        keys = [row.object_id for row in rows]
        decided = Override.objects.using(predictions.db).keys_among(source.model, keys)
        about = Prediction.objects.using(predictions.db).for_keys(source.model, keys)
        newest = set(about.newest().values_list("pk", flat=True))
        ready += [
            row.pk
            for row in rows
            if row.pk in newest
            and row.object_id not in decided
            and source.is_unset(source.clean(row.value_before))
        ]
    rows_again = Prediction.objects.using(predictions.db).filter(pk__in=ready, state=State.FAILED)
    renewed = rows_again.update(
        state=State.PENDING,
        reason=Reason.QUEUED,
        attempts=0,
        claim="",
        claimed_at=None,
        decided_at=None,
    )
    return renewed, len(failed) - renewed


def _pending_exists() -> bool:
    seconds = get_settings().queue.claim_seconds
    return _rows().claimable(claim_seconds=seconds).exists()


def _give_up_on_poison() -> None:
    options = get_settings()
    exhausted = _rows().claimable(claim_seconds=options.queue.claim_seconds)
    exhausted.filter(attempts__gte=options.queue.max_attempts).update(
        state=State.FAILED, decided_at=timezone.now()
    )


def _claim(size: int) -> list[Prediction]:
    token = uuid.uuid4().hex
    retry_on_deadlock(partial(_mark_claimed, token, size), using=plugin_database())
    return list(_rows().filter(claim=token, state=State.PENDING).order_by("pk"))


def _mark_claimed(token: str, size: int) -> None:
    rows, using = _rows(), plugin_database()
    seconds = get_settings().queue.claim_seconds
    with transaction.atomic(using=using):
        chosen, candidates = rows, rows.claimable(claim_seconds=seconds)
        if connections[using].features.has_select_for_update_skip_locked:
            candidates = candidates.select_for_update(skip_locked=True)
        else:
            # Without locks another worker may have claimed them meanwhile.
            chosen = rows.claimable(claim_seconds=seconds)
        waiting = candidates.values_list("pk", flat=True)
        # A row that was tried before may have killed a worker, so it is claimed alone.
        keys = list(waiting.filter(attempts=0)[:size]) or list(waiting[:1])
        # By key only where possible: more conditions would lock more rows.
        chosen.filter(pk__in=keys).order_by().update(
            claim=token, claimed_at=timezone.now(), attempts=models.F("attempts") + 1
        )


def _decide_claimed(claimed: list[Prediction], classifier: ActiveClassifier) -> Iterator[bool]:
    for source, predictions in _by_source(claimed):
        using = router.db_for_write(source.model)
        tickets = None
        # One source's table or adapter must not hold up the others.
        with contain_errors(using, "The tickets of %s cannot be read", source.label):
            tickets = source.by_keys([row.object_id for row in predictions], using=using)
        if tickets is None:
            continue
        known = [row for row in predictions if row.object_id in tickets]
        for row in predictions:
            if row.object_id not in tickets:
                yield _close_without_ticket(row)
        asked_about = [tickets[row.object_id] for row in known]
        # A worker may take its time, and its queue ends it; a request may not hang.
        bounded = not has_workers()
        answers = answers_about(source, classifier, asked_about, bounded=bounded)
        failed = all_failed(asked.answer for asked in answers)
        if failed and not classifier.can_answer(bounded=bounded):
            _unclaim(claimed)
            classifier.breaker.trip()
            raise ModelFailingError("The model fails at every text.")
        for row, asked in zip(known, answers, strict=True):
            if isinstance(asked.answer, Exception):
                _rows().filter(pk=row.pk, claim=row.claim).update(reason=Reason.MODEL_ERROR)
                continue
            if asked.answer is None:
                fill_abstained(row, classifier)
            else:
                answer, milliseconds = asked.answer
                fill(row, asked.text, answer, classifier, milliseconds, language=asked.language)
            was_settled = False
            # The others go on. The row is tried again, alone, when its claim has expired.
            with contain_errors(using, "An answer about a %s could not be stored", source.label):
                was_settled = _settle(source, tickets[row.object_id], row, using)
            yield was_settled


def _unclaim(claimed: list[Prediction]) -> None:
    """Release the undecided rows of a claim, without counting the attempt."""
    rows = _rows().filter(
        pk__in=[row.pk for row in claimed], claim=claimed[0].claim, state=State.PENDING
    )
    rows.update(claim="", claimed_at=None, attempts=models.F("attempts") - 1)


def _settle(
    source: TicketSource, instance: models.Model, prediction: Prediction, using: str
) -> bool:
    """Apply a claimed, classified prediction, once and only if nobody else has decided."""
    claim, prediction.claim, prediction.decided_at = prediction.claim, "", timezone.now()
    applies = prediction.state == State.PENDING and suggest_unless_applicable(prediction)

    def settle() -> None:
        with transaction.atomic(using=using), transaction.atomic(using=plugin_database()):
            if applies and prediction.reason != Reason.REFUSED:
                write_if_unchanged(source, instance, prediction, using)
            ours = _rows().filter(pk=prediction.pk, claim=claim, state=State.PENDING)
            if not ours.update(**stored_values(prediction)):
                raise _Overtaken
            if prediction.state == State.APPLIED:
                after_apply(source, instance, prediction, using)

    try:
        settle_or_suggest(source, instance, prediction, settle, using)
    except _Overtaken:
        return False
    announce(instance, prediction)
    return True


class _Overtaken(Exception):
    """Another worker or a person settled the prediction first."""


def _rows() -> PredictionQuerySet:
    rows: PredictionQuerySet = Prediction.objects.using(plugin_database())
    return rows


def _by_source(
    predictions: Sequence[Prediction],
) -> Iterator[tuple[TicketSource, list[Prediction]]]:
    """Group predictions by source, without those of models that are not a source."""
    by_type: dict[int, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_type[prediction.content_type_id].append(prediction)
    for content_type_id, rows in by_type.items():
        model = ContentType.objects.get_for_id(content_type_id).model_class()
        try:
            if model is not None:
                yield get_source(model), rows
        except SourceError:
            logger.warning("Pending predictions of %s wait: it is not a ticket source", model)


def _close_without_ticket(prediction: Prediction) -> bool:
    closed = _rows().filter(pk=prediction.pk, claim=prediction.claim)
    return bool(
        closed.update(
            state=State.ABSTAINED, reason=Reason.TICKET_GONE, decided_at=timezone.now(), claim=""
        )
    )
