"""Which priorities people gave, and why each is believed: the labels of the host's tickets.

Tables are read in batches, by key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, time
from typing import Any, Final

from django.db import models, router
from django.utils import timezone

from ticket_priority.conf import get_settings
from ticket_priority.ml.text.normalisation import text_hash
from ticket_priority.ml.types import LabelledText
from ticket_priority.models import Override, Prediction, plugin_database
from ticket_priority.predictions import audit
from ticket_priority.sources.base import TicketSource, is_column

_BATCH: Final = 2000


def labelled_texts(
    source: TicketSource,
    using: str | None = None,
    *,
    dropped: Counter[str] | None = None,
    edited: Counter[str] | None = None,
) -> Iterator[LabelledText]:
    """Yield a source's examples: the value a person set, by an override or in the host's own way.

    A value that equals one of the plugin's own predictions, and that nobody reviewed, is no label;
    nor is one that a form which was opened before the prediction put back. A ticket of the audit
    slice is labelled by a person's word alone, never by a default. The table is read in batches;
    texts are normalised, and as the tickets were created, as far as the source knows. `edited`
    counts the tickets whose text the plugin knows to have been another one.
    """
    dropped = Counter() if dropped is None else dropped
    edited = Counter() if edited is None else edited
    weights = get_settings().training.label_weights
    for batch in _batches(source, using):
        judged = _Judge(source, batch, using)
        keys = [ticket.pk for ticket in batch]
        first_hashes = Prediction.objects.using(plugin_database()).first_hashes(source.model, keys)
        for ticket in batch:
            label, provenance = judged.label_of(ticket)
            if label is None:
                dropped[provenance] += 1
            elif not (text := source.text_at_creation(ticket)):
                dropped["empty text"] += 1
            else:
                if first_hash := first_hashes.get(str(ticket.pk)):
                    edited.update(_edits(first_hash, text, source.text_of(ticket)))
                yield LabelledText(
                    text=text,
                    label=label,
                    source=source.label,
                    pk=str(ticket.pk),
                    language=source.language_of(ticket),
                    segment=source.segment_of(ticket),
                    created_at=_created_at(ticket, source.created_field),
                    provenance=provenance,
                    weight=float(weights.get(provenance, 1.0)),
                )


def labels_of(
    source: TicketSource, keys: Iterable[str], using: str | None = None
) -> dict[str, int]:
    """Return the label of each of these tickets that bears one, by `str(pk)`."""
    column = source.model._meta.pk
    only = models.Q(pk__in=[column.to_python(key) for key in keys])
    return dict(_labels(source, only, using))


def labels_since(source: TicketSource, since: datetime | None, using: str | None = None) -> int:
    """Count the tickets that people labelled since; of all time where `since` is None.

    Counted are tickets created since that bear a label, where the source names a column as
    `created_field`, and tickets on which a decision was recorded since. A priority that was
    changed in the host's own way, on an older ticket and unrecorded, has no date and is not.
    """
    if since is None:
        return sum(1 for _label in _labels(source, models.Q(), using))
    overrides = Override.objects.using(plugin_database()).for_model(source.model)
    decided = set(overrides.filter(created_at__gt=since).values_list("object_id", flat=True))
    if source.created_field is None or not is_column(source.model, source.created_field):
        return len(decided)
    created = models.Q(**{f"{source.created_field}__gt": since})
    return len(decided.union(key for key, _label in _labels(source, created, using)))


def audited_labels(
    source: TicketSource, keys: Collection[Any], using: str | None = None
) -> dict[str, int]:
    """Return what people said first, and unseen, of these tickets of the audit slice, by key."""
    overrides = Override.objects.using(plugin_database()).for_keys(source.model, keys)
    decided = set(overrides.values_list("object_id", flat=True))
    tickets = list(source.labelled_rows(using, decided_keys=decided).filter(pk__in=keys))
    judged = _Judge(source, tickets, using)
    said = {str(ticket.pk): judged.unseen_label_of(ticket) for ticket in tickets}
    return {key: label for key, label in said.items() if label is not None}


class _Judge:
    """What is known of a batch of tickets, and which label follows from it."""

    def __init__(
        self, source: TicketSource, batch: Collection[models.Model], using: str | None
    ) -> None:
        self.source = source
        keys = [ticket.pk for ticket in batch]
        alias = plugin_database()
        self.applied = Prediction.objects.using(alias).applied_values(source.model, keys)
        overrides = Override.objects.using(alias).for_keys(source.model, keys).order_by("pk")
        decisions = list(overrides.values_list("object_id", "from_priority", "to_priority"))
        self.decisions = {key: (before, after) for key, before, after in decisions}
        self.first_words = {key: after for key, _before, after in reversed(decisions)}
        self.audited = audit.audited_keys(source.model, keys)
        self.reviewed = source.reviewed_keys(keys, using)
        self.undone = Prediction.objects.using(alias).undone_keys(source.model, keys)

    def label_of(self, ticket: models.Model) -> tuple[int | None, str]:
        """Return the label and its provenance, or None and why there is none."""
        label, provenance = self._label_of(ticket)
        if label is None or str(ticket.pk) not in self.audited:
            return label, provenance
        return self._audited(ticket, label, provenance)

    def unseen_label_of(self, ticket: models.Model) -> int | None:
        """Return what a person said first of a ticket of the audit slice; None: nothing yet."""
        label, _provenance = self.label_of(ticket)
        return None if label is None else self.first_words.get(str(ticket.pk), label)

    def _audited(self, ticket: models.Model, label: int, provenance: str) -> tuple[int | None, str]:
        key = str(ticket.pk)
        if key not in self.decisions and self.source.is_unset(self.source.value_of(ticket)):
            return None, "unset in the audit slice"
        # From the first word on the prediction is there to be seen.
        was_unseen = self.first_words.get(key, label) == label and not self.applied[key]
        return label, "audit" if was_unseen else provenance

    def _label_of(self, ticket: models.Model) -> tuple[int | None, str]:
        key = str(ticket.pk)
        applied = self.applied[key]
        current = self.source.label_of(ticket)
        if current is None and key in self.reviewed:
            # A host's default is no label, unless it was predicted and then seen.
            current = self.source.meaning_of(self.source.value_of(ticket))
            current = current if current in applied else None
        is_ours = current is not None and current in applied
        if (decision := self.decisions.get(key)) is not None:
            before, after = decision
            # Where every decision is recorded, a later change was nobody's: an escalation, say.
            if current is None or is_ours or current == after or self.source.record_changes:
                return after, "confirmation" if before == after else "override"
        if key in self.undone and decision is None and not is_ours:
            return None, "put back by a stale form"
        if current is None:
            return None, "value maps to no class"
        if not is_ours:
            return int(current), "host_change" if applied or decision else "host"
        if key in self.reviewed:
            return int(current), "reviewed"
        return None, "unreviewed prediction"


def _labels(source: TicketSource, only: models.Q, using: str | None) -> Iterator[tuple[str, int]]:
    for batch in _batches(source, using, only):
        judged = _Judge(source, batch, using)
        for ticket in batch:
            label, _provenance = judged.label_of(ticket)
            if label is not None:
                yield str(ticket.pk), label


def _batches(
    source: TicketSource, using: str | None, only: models.Q | None = None
) -> Iterator[list[models.Model]]:
    """Yield the rows that may bear a label, in batches, in the order of their keys.

    By key, not by a cursor: MySQL and poolers of connections read a cursor's whole result at once.
    """
    keys: Any = Override.objects.using(plugin_database()).for_model(source.model)
    keys = keys.ticket_keys(source.model)
    if plugin_database() != (using or router.db_for_read(source.model)):
        keys = list(keys)
    rows = source.labelled_rows(using, decided_keys=keys).order_by("pk")
    if only:
        rows = rows.filter(only)
    batch = list(rows[:_BATCH])
    while batch:
        yield batch
        if len(batch) < _BATCH:
            return
        batch = list(rows.filter(pk__gt=batch[-1].pk)[:_BATCH])


def _edits(first_hash: str, text: str, text_today: str) -> Iterator[str]:
    """Name what counts of a ticket: the hash of its first text is `known`; the text was edited
    `since`; and it is `restored` where `text` is the first one all the same.
    """
    yield "known"
    if text_hash(text_today) != first_hash:
        yield "since"
        if text_hash(text) == first_hash:
            yield "restored"


def _created_at(ticket: models.Model, name: str | None) -> str:
    """Return a point in time as `LabelledText.created_at` holds it; "" for what is none."""
    value = getattr(ticket, name) if name else None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return ""
    aware = timezone.make_aware(value) if timezone.is_naive(value) else value
    try:
        return aware.astimezone(UTC).isoformat(timespec="microseconds")
    except OverflowError:
        # The year 1 or 9999, as some hosts write for "unknown".
        return ""
