"""The labels of the host's tickets: which priorities people set, and how that is known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final, NamedTuple

from django.db import models, router
from django.utils import timezone

from ticket_priority.conf import get_settings
from ticket_priority.db import pages_by_key
from ticket_priority.ml.text.normalisation import text_hash
from ticket_priority.ml.types import LabelledText
from ticket_priority.models import ErasedTicket, Override, Prediction, plugin_database
from ticket_priority.predictions import audit
from ticket_priority.sources.base import TicketSource, is_column
from ticket_priority.sources.column import defaults_called_once
from ticket_priority.sources.keys import read_keys, ticket_key

_BATCH: Final = 2000
_READ: Final = ("object_id", "state", "reason", "mode", "priority")


def labelled_texts(
    source: TicketSource,
    using: str | None = None,
    *,
    dropped: Counter[str] | None = None,
    edited: Counter[str] | None = None,
) -> Iterator[LabelledText]:
    """Yield a source's examples: text, and the priority that a person set.

    `_RULES` says which priority is a label. A ticket of the audit slice has one only where a
    decision is recorded. The table is read in pages. Texts are normalised, and are
    those of the ticket's creation, as far as the source knows them. `dropped` counts tickets
    without an example, by reason; `edited` those whose text is known to have been changed.
    """
    dropped = Counter() if dropped is None else dropped
    edited = Counter() if edited is None else edited
    weights = get_settings().training.label_weights
    for batch in _batches(source, using):
        resolver = LabelResolver(source, batch, using)
        keys = [ticket.pk for ticket in batch]
        first_hashes = Prediction.objects.using(plugin_database()).first_hashes(source.model, keys)
        for ticket in batch:
            label, provenance = resolver.label_of(ticket)
            if label is None:
                dropped[provenance] += 1
            elif not (text := resolver.text_of(ticket)):
                dropped["empty text"] += 1
            else:
                if first_hash := first_hashes.get(ticket_key(ticket)):
                    edited.update(_edits(first_hash, text, source.text_of(ticket)))
                yield LabelledText(
                    text=text,
                    label=label,
                    source=source.label,
                    pk=ticket_key(ticket),
                    language=source.language_of(ticket),
                    segment=source.segment_of(ticket),
                    created_at=_created_at(ticket, source.created_field),
                    provenance=provenance,
                    weight=float(weights.get(provenance, 1.0)),
                )


def labels_of(
    source: TicketSource, keys: Iterable[str], using: str | None = None
) -> dict[str, int]:
    """Return the label of each of these tickets that has one, by `key_text`."""
    only = models.Q(pk__in=read_keys(source.model, keys, using))
    return dict(_labels(source, only, using))


def labels_since(source: TicketSource, since: datetime | None, using: str | None = None) -> int:
    """Count the tickets that people labelled since; of all time where `since` is None.

    These are the tickets on which an override was recorded since and, where the source names a
    column as `created_field`, the labelled tickets that were created since. The host's own change
    of an older ticket's priority, where it is not recorded, has no date and is not counted.
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
    """Return by key what people said of these audited tickets before they saw a prediction."""
    overrides = Override.objects.using(plugin_database()).for_keys(source.model, keys)
    decided, asked = set(overrides.values_list("object_id", flat=True)), set(keys)
    rows = source.labelled_rows(using, decided_keys=read_keys(source.model, decided, using))
    tickets = list(rows.filter(pk__in=read_keys(source.model, keys, using)))
    resolver = LabelResolver(source, tickets, using)
    labels = {ticket_key(ticket): resolver.label_of(ticket)[0] for ticket in tickets}
    first = resolver.first_words
    return {key: first[key] for key, label in labels.items() if label is not None and key in asked}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What decides over one ticket's label; `current` and `decided` are classes.

    `current` is None where the priority maps to no class, or is a default that nobody chose;
    `decided` where there is no override. `is_ours`: the plugin wrote the current priority.
    `was_changed`: the plugin or an override changed it before. `was_undone`: a form opened before
    the prediction put the old one back, and nobody decided. `is_copied`: a ticket before it, with
    the same text, was predicted the current priority. `was_erased`: the plugin wrote a priority,
    but what was stored about it was erased, so it may be the current one.
    """

    current: int | None
    decided: int | None
    decided_from: int | None
    is_ours: bool
    was_changed: bool
    was_reviewed: bool
    was_undone: bool
    was_erased: bool
    is_copied: bool
    changes_are_recorded: bool

    @property
    def decision_holds(self) -> bool:
        """Whether the last override is still what a person wants."""
        if self.decided is None:
            return False
        # Where every decision is recorded, a later change is an escalation, for example.
        return self.current in (None, self.decided) or self.is_ours or self.changes_are_recorded


class _Rule(NamedTuple):
    """A label's provenance, or the reason why there is none; when it holds; and the label."""

    name: str
    holds: Callable[[_Facts], bool]
    label: Callable[[_Facts], int | None]


# The first rule that holds decides.
_RULES: Final = (
    _Rule(
        "confirmation",
        lambda it: it.decision_holds and it.decided_from == it.decided,
        lambda it: it.decided,
    ),
    _Rule("override", lambda it: it.decision_holds, lambda it: it.decided),
    _Rule("put back by a stale form", lambda it: it.was_undone and not it.is_ours, lambda it: None),
    _Rule("value maps to no class", lambda it: it.current is None, lambda it: None),
    _Rule("predictions were erased", lambda it: it.was_erased and not it.is_ours, lambda it: None),
    _Rule("copied prediction", lambda it: it.is_copied and not it.is_ours, lambda it: None),
    _Rule("host_change", lambda it: not it.is_ours and it.was_changed, lambda it: it.current),
    _Rule("host", lambda it: not it.is_ours, lambda it: it.current),
    _Rule("reviewed", lambda it: it.was_reviewed, lambda it: it.current),
    _Rule("unreviewed prediction", lambda it: True, lambda it: None),
)


class LabelResolver:
    """Reads what is known of a batch of tickets once, and resolves the label of each."""

    def __init__(
        self, source: TicketSource, batch: Collection[models.Model], using: str | None
    ) -> None:
        self.source = source
        self.defaults: dict[Any, Any] = {}
        keys = [ticket.pk for ticket in batch]
        alias = plugin_database()
        predictions = Prediction.objects.using(alias)
        self.begun = predictions.values_at_creation(source, keys)
        self.applied: defaultdict[str, set[int]] = defaultdict(set)
        self.audited: set[str] = set()
        self.undone: set[str] = set()
        known: set[str] = set()
        rows = predictions.for_keys(source.model, keys).order_by().values_list(*_READ)
        for key, state, reason, mode, priority in rows:
            known.add(key)
            if state == Prediction.State.APPLIED:
                self.applied[key].add(priority)
            if mode == audit.MODE:
                self.audited.add(key)
            if reason == Prediction.Reason.STALE_FORM:
                self.undone.add(key)
        overrides = Override.objects.using(alias).for_keys(source.model, keys).order_by("pk")
        decisions = list(overrides.values_list("object_id", "from_priority", "to_priority"))
        self.decisions = {key: (before, after) for key, before, after in decisions}
        self.first_words = {key: after for key, _before, after in reversed(decisions)}
        self.reviewed = source.reviewed_keys(keys, using)
        self.erased = ErasedTicket.objects.using(alias).keys_among(source.model, keys)
        # Copies that the plugin saw created have a prediction of their own.
        known.update(self.decisions)
        unknown = [ticket for ticket in batch if ticket_key(ticket) not in known]
        self.texts = {ticket.pk: source.text_at_creation(ticket) for ticket in unknown}
        self.hashes = {pk: text_hash(text) for pk, text in self.texts.items() if text}
        self.first_applied = predictions.first_applied(source.model, set(self.hashes.values()))

    def label_of(self, ticket: models.Model) -> tuple[int | None, str]:
        """Return the label and its provenance, or None and why there is none."""
        with defaults_called_once(self.defaults):
            return self._label_of(ticket)

    def _label_of(self, ticket: models.Model) -> tuple[int | None, str]:
        facts = self._facts_of(ticket)
        rule = next(rule for rule in _RULES if rule.holds(facts))
        label, key = rule.label(facts), ticket_key(ticket)
        if label is None or key not in self.audited:
            return label, rule.name
        if key not in self.decisions:
            return None, "undecided in the audit slice"
        # The prediction can be seen from the first decision on.
        was_unseen = self.first_words[key] == label and not self.applied[key]
        return label, "audit" if was_unseen else rule.name

    def _facts_of(self, ticket: models.Model) -> _Facts:
        key = ticket_key(ticket)
        applied = self.applied[key]
        current = self.source.label_of(ticket)
        if current is None and key in self.reviewed:
            # A host's default is no label, unless it was predicted and then seen.
            current = self.source.meaning_of(self.source.value_of(ticket))
            current = current if current in applied else None
        # A table that takes no ticket without a priority gets one that nobody chose.
        is_as_begun = self.source.as_json(self.source.value_of(ticket)) in self.begun[key]
        decided_from, decided = self.decisions.get(key, (None, None))
        return _Facts(
            current=None if current is None else int(current),
            decided=decided,
            decided_from=decided_from,
            is_ours=current is not None and (current in applied or is_as_begun),
            was_changed=bool(applied) or decided is not None,
            was_reviewed=key in self.reviewed,
            was_undone=key in self.undone and decided is None,
            was_erased=key in self.erased,
            is_copied=self._is_copied(ticket, current),
            changes_are_recorded=self.source.record_changes,
        )

    def text_of(self, ticket: models.Model) -> str:
        """Return the ticket's text at its creation."""
        return self.texts.get(ticket.pk) or self.source.text_at_creation(ticket)

    def _is_copied(self, ticket: models.Model, priority: int | None) -> bool:
        if priority is None:
            return False
        first = self.first_applied.get((self.hashes.get(ticket.pk, ""), int(priority)))
        if isinstance(first, datetime):
            return _created_at(ticket, self.source.created_field) > _as_text(first)
        return first is not None and ticket.pk > first


def _labels(source: TicketSource, only: models.Q, using: str | None) -> Iterator[tuple[str, int]]:
    for batch in _batches(source, using, only):
        resolver = LabelResolver(source, batch, using)
        for ticket in batch:
            label, _provenance = resolver.label_of(ticket)
            if label is not None:
                yield ticket_key(ticket), label


def _batches(
    source: TicketSource, using: str | None, only: models.Q | None = None
) -> Iterator[list[models.Model]]:
    """Yield the rows that may have a label, in pages."""
    overrides = Override.objects.using(plugin_database())
    keys = overrides.ticket_keys(source.model, using or router.db_for_read(source.model))
    rows = source.labelled_rows(using, decided_keys=keys)
    if only:
        rows = rows.filter(only)
    return pages_by_key(rows, _BATCH)


def _edits(first_hash: str, text: str, text_today: str) -> Iterator[str]:
    """Yield "known", "since" if the text was edited, "restored" if `text` is the first again."""
    yield "known"
    if text_hash(text_today) != first_hash:
        yield "since"
        if text_hash(text) == first_hash:
            yield "restored"


def _created_at(ticket: models.Model, name: str | None) -> str:
    """Return a time as `LabelledText.created_at` holds it; "" where there is none."""
    value = getattr(ticket, name) if name else None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return ""
    aware = timezone.make_aware(value) if timezone.is_naive(value) else value
    try:
        return _as_text(aware)
    except OverflowError:
        # Some hosts write the year 1 or 9999 for "unknown".
        return ""


def _as_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
