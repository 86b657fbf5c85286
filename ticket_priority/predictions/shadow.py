"""The shadow: a second model version answers too, without any effect on tickets.

The active version has priority: a worker runs the shadow when no ticket waits, for a few seconds at
a time, and only one worker at a time holds the claim on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Final, cast

from django.contrib.contenttypes.models import ContentType
from django.db import models, router
from django.utils import timezone

from ticket_priority.classifiers import (
    ActiveClassifier,
    get_shadow_classifier,
    release_shadow,
    store_load_error,
)
from ticket_priority.conf import get_settings
from ticket_priority.db import pages_by_key, unclaimed
from ticket_priority.exceptions import ModelUnavailableError
from ticket_priority.logs import redacted_traceback
from ticket_priority.ml.text.normalisation import text_hash
from ticket_priority.ml.types import CLASS_NAMES
from ticket_priority.models import (
    ModelVersion,
    Prediction,
    PredictionQuerySet,
    ShadowPrediction,
    plugin_database,
)
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions import kill_switch
from ticket_priority.predictions.outcome import answers_of
from ticket_priority.sources import TicketSource, all_sources, get_source

logger = logging.getLogger(__name__)

SLICE_SECONDS: Final = 20.0
"""How long a worker runs the shadow without a pause."""


def is_wanted() -> bool:
    """Say whether a version is the shadow; if none is, free the last one's memory."""
    if kill_switch.is_on() and ModelVersion.objects.filter(is_shadow=True).exists():
        return True
    release_shadow()
    return False


def catch_up() -> int:
    """Have the shadow classify, for a few seconds, tickets that the active version has answered.

    Returns their number. Stops as soon as a ticket waits for the active version. Errors are logged
    and stored as the shadow's load error, and the next call tries again.
    """
    answered = 0
    try:
        for size in batches(seconds=SLICE_SECONDS):
            answered += size
    except ModelUnavailableError as error:
        logger.warning("The shadow is not available: %s", error)
    except Exception as error:
        logger.error("The shadow failed: %s", redacted_traceback(error))
    return answered


def batches(*, seconds: float | None = None) -> Iterator[int]:
    """Have the shadow classify, and yield the number of tickets in each batch.

    With `seconds` it stops after that time, or when a ticket waits for the active version. Yields
    nothing while another worker runs the shadow, nor after `MAX_ATTEMPTS` workers have died running
    it. Raises ModelUnavailableError, or the shadow's error where it fails at a whole batch.
    """
    version = ModelVersion.objects.using(plugin_database()).shadow()
    if version is None or not kill_switch.is_on() or not _claim(version):
        return
    try:
        yield from _answer_batches(version, seconds)
    except ModelUnavailableError:
        raise
    except Exception as error:
        reason = f"It fails at every ticket with {type(error).__name__}; see the log."
        store_load_error(version, reason)
        raise
    finally:
        _row(version).update(shadow_claimed_at=None, shadow_attempts=0)


def waiting(version: ModelVersion) -> int:
    """Count the tickets that the shadow has not answered yet."""
    return _unanswered(version).values("content_type", "object_id").distinct().count()


def rival_of(version: ModelVersion) -> ModelVersion | None:
    """Return the version a shadow is compared with: the active one, or the last active one."""
    others = ModelVersion.objects.exclude(pk=version.pk).exclude(activated_at=None)
    return others.order_by(models.F("is_active").desc(nulls_last=True), "-activated_at").first()


def agreement(version: ModelVersion, served_by: ModelVersion) -> list[list[int]]:
    """Count tickets by the served class (rows) and the shadow's (columns) for the same text."""
    table = [[0] * len(CLASS_NAMES) for _ in CLASS_NAMES]
    answered = version.shadow_predictions.beside(served_by).filter(
        priority__isnull=False, served__isnull=False
    )
    pairs = answered.order_by().values("served", "priority").annotate(number=models.Count("pk"))
    for pair in pairs:
        table[pair["served"]][pair["priority"]] = pair["number"]
    return table


def _claim(version: ModelVersion) -> bool:
    """Claim the shadow, unless a worker holds the claim or too many died with it."""
    options = get_settings().queue
    free = unclaimed("shadow_claimed_at", options.claim_seconds)
    claimable = _row(version).filter(free, is_shadow=True)
    if claimable.filter(shadow_attempts__gte=options.max_attempts).exists():
        store_load_error(
            version,
            f"{options.max_attempts} workers died while this version answered as the "
            "shadow, so it is not used; activate_priority_model NAME --shadow tries again.",
        )
        return False
    return bool(
        claimable.update(
            shadow_claimed_at=timezone.now(), shadow_attempts=models.F("shadow_attempts") + 1
        )
    )


def _answer_batches(version: ModelVersion, seconds: float | None) -> Iterator[int]:
    started, size = time.monotonic(), get_settings().serving.batch_size
    pages = pages_by_key(_unanswered(version), size, until_empty=True)
    for number, predictions in enumerate(pages):
        if seconds is not None and (_ticket_waits() or time.monotonic() - started > seconds):
            return
        classifier = get_shadow_classifier(version)
        renewed = {"shadow_claimed_at": timezone.now()}
        # A second batch shows that the first did not kill the worker.
        attempts = {"shadow_attempts": 1} if number else {}
        if not _row(version).filter(is_shadow=True).update(**renewed, **attempts):
            return
        rows = list(_rows_about(predictions, classifier))
        ShadowPrediction.objects.using(plugin_database()).bulk_create(rows, ignore_conflicts=True)
        _delete_orphans(version, rows)
        store_load_error(version, "")
        yield len(rows)


def _delete_orphans(version: ModelVersion, rows: Sequence[ShadowPrediction]) -> None:
    """Delete the answers about tickets that were deleted, with their predictions, meanwhile."""
    using = plugin_database()
    predicted = Prediction.objects.filter(
        content_type=models.OuterRef("content_type"), object_id=models.OuterRef("object_id")
    )
    keys = [row.object_id for row in rows]
    answers = version.shadow_predictions.using(using).filter(object_id__in=keys)
    orphans = answers.filter(~models.Exists(predicted)).values_list("pk", flat=True)
    ShadowPrediction.objects.using(using).filter(pk__in=list(orphans)).delete()


def _unanswered(version: ModelVersion) -> PredictionQuerySet:
    """Return the active version's answers since the shadow began that the shadow lacks."""
    using = plugin_database()
    answered = ShadowPrediction.objects.filter(
        content_type=models.OuterRef("content_type"),
        object_id=models.OuterRef("object_id"),
        model_version=version,
    )
    rows: PredictionQuerySet = Prediction.objects.using(using).filter(
        ~models.Exists(answered),
        model_version__is_active=True,
        priority__isnull=False,
        decided_at__gte=version.shadow_since,
        content_type__in=[content_type_of(source.model) for source in all_sources()],
    )
    return rows


def _ticket_waits() -> bool:
    """Say whether a ticket waits for the active version."""
    seconds = get_settings().queue.claim_seconds
    rows = Prediction.objects.using(plugin_database()).claimable(claim_seconds=seconds)
    return rows.filter(attempts=0).exists()


def _rows_about(
    predictions: Sequence[Prediction], classifier: ActiveClassifier
) -> Iterator[ShadowPrediction]:
    """Yield the shadow's answer about each ticket; raises its error if it answers none."""
    by_ticket = {(row.content_type_id, row.object_id): row for row in predictions}
    rows = list(by_ticket.values())
    texts = _texts_of(rows)
    answers = answers_of(classifier, texts)
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    if errors and not any(isinstance(answer, tuple) for answer in answers):
        raise errors[0]
    for row, text, answer in zip(rows, texts, answers, strict=True):
        new = ShadowPrediction(
            content_type_id=row.content_type_id,
            object_id=row.object_id,
            model_version=classifier.model_version,
            text_hash=text_hash(text) if text else "",
        )
        if isinstance(answer, tuple):
            classification = answer[0]
            new.prob_low, new.prob_medium, new.prob_high = classification.probabilities
            new.priority, new.confidence = classification.priority, classification.confidence
        yield new


def _texts_of(rows: Sequence[Prediction]) -> list[str]:
    """Return the text of each prediction's ticket; empty if it is gone or unreadable."""
    texts: dict[tuple[int, str], str] = {}
    for content_type_id in {row.content_type_id for row in rows}:
        model = ContentType.objects.get_for_id(content_type_id).model_class()
        source = get_source(cast("type[models.Model]", model))
        same_type = [row for row in rows if row.content_type_id == content_type_id]
        hashes = {row.object_id: row.text_hash for row in same_type}
        tickets = source.by_keys(hashes, using=router.db_for_read(source.model))
        for key, ticket in tickets.items():
            texts[content_type_id, key] = _text_of(source, ticket, hashes[key])
    return [texts.get((row.content_type_id, row.object_id), "") for row in rows]


def _text_of(source: TicketSource, ticket: models.Model, wanted_hash: str) -> str:
    """Return the text that the active version classified, if it is still known, else today's."""
    try:
        text = source.text_of(ticket)
        if text_hash(text) == wanted_hash:
            return text
        original = source.text_at_creation(ticket)
    except Exception as error:
        logger.error("A %s cannot be read: %s", source.label, redacted_traceback(error))
        return ""
    return original if text_hash(original) == wanted_hash else text


def _row(version: ModelVersion) -> models.QuerySet[ModelVersion]:
    return ModelVersion.objects.using(plugin_database()).filter(pk=version.pk)
