"""Use case: classify the tickets of a period with model versions. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
from django.conf import settings
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.utils import timezone

from ticket_priority.classifiers import ActiveClassifier, load, rule_of
from ticket_priority.db import pages_by_key
from ticket_priority.exceptions import SourceError
from ticket_priority.ml.evaluation.metrics import Counts, report_counts
from ticket_priority.ml.types import CLASS_NAMES, ProgressCallback, silent
from ticket_priority.models import ModelVersion, Prediction, plugin_database
from ticket_priority.predictions.outcome import Answer, answers_about, answers_of
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.column import defaults_called_once
from ticket_priority.sources.keys import ticket_key
from ticket_priority.training.labels import labels_of

_BATCH = 500
_SQUARE = (len(CLASS_NAMES), len(CLASS_NAMES))


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` and before `until` (None: no end), in the project's time zone."""

    since: datetime
    until: datetime | None = None

    @classmethod
    def parse(cls, since: str, until: str | None = None) -> Period:
        """Read ISO dates or times; a last date belongs to the period.

        Raises ValueError with what is wrong.
        """
        first = _moment(since)
        last = None if until is None else _moment(until, whole_day=True)
        if last is not None and last <= first:
            raise ValueError(f"the period ends before it begins: {since} to {until}")
        return cls(first, last)

    def rows(self, source: TicketSource, using: str | None) -> models.QuerySet[Any]:
        """Return the source's tickets that were created in the period; raises SourceError."""
        name = source.created_field
        try:
            column = source.model._meta.get_field(name or "")
        except FieldDoesNotExist:
            column = None
        if not isinstance(column, models.DateField):
            what = f"its {name} is no column of dates" if name else "it names no created_field"
            raise SourceError(
                f"It is not known when the tickets of {source.label} were created: {what}. Name "
                'the column as "created_field", or choose other tickets with --source.'
            )
        has_time = isinstance(column, models.DateTimeField)
        ends = {f"{name}__gte": self.since, f"{name}__lt": self.until}
        known = {
            lookup: moment if has_time else _local_date(moment)
            for lookup, moment in ends.items()
            if moment is not None
        }
        return source.queryset(using).filter(**known)


@dataclass(slots=True)
class _Tally:
    """One version's answers about a period's tickets, counted.

    `chosen` [classes] counts its answers. Each of the `tables` [classes, classes] has a column for
    each class it answers; the rows are the class applied when the ticket came, the one that it has
    now, and the label.
    """

    version: ModelVersion
    chosen: Counts = field(default_factory=lambda: np.zeros(len(CLASS_NAMES), dtype=np.int64))
    tables: Counts = field(default_factory=lambda: np.zeros((3, *_SQUARE), dtype=np.int64))
    without_text: int = 0
    failed: int = 0

    def as_dict(self, period: Period) -> dict[str, Any]:
        applied, held, labels = self.tables
        return {
            "model_version": self.version.name,
            "active": bool(self.version.is_active),
            "tickets": int(self.chosen.sum()) + self.without_text + self.failed,
            "classes": dict(zip(CLASS_NAMES, self.chosen.tolist(), strict=True)),
            "without_text": self.without_text,
            "failed": self.failed,
            "applied_then": _agreement(applied),
            "held_now": _agreement(held),
            "labels": report_counts(labels) if labels.any() else None,
            "caution": _caution(self.version, period),
        }

    def add(self, answer: Answer, *others: int | None) -> None:
        """Count the answer about one ticket, whose class in each table may be None."""
        if answer is None:
            self.without_text += 1
            return
        if isinstance(answer, Exception):
            self.failed += 1
            return
        chosen = answer[0].priority
        self.chosen[chosen] += 1
        for table, other in zip(self.tables, others, strict=True):
            if other is not None:
                table[other, chosen] += 1


def replay(
    versions: Sequence[ModelVersion],
    sources: Sequence[TicketSource],
    period: Period,
    *,
    limit: int | None = None,
    using: str | None = None,
    progress: ProgressCallback = silent,
) -> list[dict[str, Any]]:
    """Classify every ticket of a period with each version, by the text that it has today.

    Returns the counts of each version's answers, ready for JSON: `labels` has the figures of
    `metrics.report_counts`, or is None without a label; `caution` says why they may be too good, or
    is "". At most `limit` tickets of each source are read, in pages. A ticket that cannot be read
    or classified is counted and logged. Raises SourceError where a source does not say when its
    tickets were created, ArtifactError or ModelUnavailableError.
    """
    chosen = [period.rows(source, using) for source in sources]
    loaded = [ActiveClassifier(version, load(version), rule_of(version)) for version in versions]
    tallies = [_Tally(version) for version in versions]
    for source, rows in zip(sources, chosen, strict=True):
        total = rows.count() if limit is None else min(rows.count(), limit)
        progress(f"{source.label}: {total} tickets")
        seen = 0
        for batch in pages_by_key(rows, _BATCH, limit=limit):
            _replay_batch(source, batch, loaded, tallies, using)
            seen += len(batch)
            progress(f"  {seen} of {total}")
    return [tally.as_dict(period) for tally in tallies]


@defaults_called_once()
def _replay_batch(
    source: TicketSource,
    batch: Sequence[models.Model],
    loaded: Sequence[ActiveClassifier],
    tallies: Sequence[_Tally],
    using: str | None,
) -> None:
    applied = _first_applied(source, batch)
    labels = labels_of(source, [ticket_key(ticket) for ticket in batch], using)
    found = answers_about(source, loaded[0], batch)
    texts = [asked.text for asked in found]
    answers = [[asked.answer for asked in found]]
    answers += [answers_of(classifier, texts) for classifier in loaded[1:]]
    for tally, said in zip(tallies, answers, strict=True):
        for ticket, answer in zip(batch, said, strict=True):
            key = ticket_key(ticket)
            held = source.to_priority(source.value_of(ticket))
            tally.add(answer, applied.get(key), held, labels.get(key))


def _first_applied(source: TicketSource, batch: Sequence[models.Model]) -> dict[str, int]:
    """Return the class that was applied to each ticket first, by `key_text`."""
    keys = [ticket.pk for ticket in batch]
    rows = Prediction.objects.using(plugin_database()).for_keys(source.model, keys)
    applied = rows.filter(state=Prediction.State.APPLIED).order_by("-pk")
    return dict(applied.values_list("object_id", "priority"))


def _caution(version: ModelVersion, period: Period) -> str:
    if version.is_starter or period.since >= version.created_at:
        return ""
    return (
        f"{version.name} may have been trained on tickets from before "
        f"{_local_date(version.created_at)}, which flatters it"
    )


def _agreement(table: Counts) -> dict[str, Any]:
    """Count the tickets whose answer is the same, higher or lower; ready for JSON."""
    return {
        "compared": int(table.sum()),
        "same": int(np.trace(table)),
        "higher": int(np.triu(table, 1).sum()),
        "lower": int(np.tril(table, -1).sum()),
        "matrix": table.tolist(),
    }


def _moment(text: str, *, whole_day: bool = False) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date such as 2026-11-01") from None
    with suppress(ValueError):
        moment = datetime.combine(date.fromisoformat(text), time()) + timedelta(days=whole_day)
    if settings.USE_TZ:
        return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
    return moment if timezone.is_naive(moment) else timezone.make_naive(moment)


def _local_date(moment: datetime) -> date:
    return (timezone.localtime(moment) if timezone.is_aware(moment) else moment).date()
