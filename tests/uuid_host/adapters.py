"""Adapters to the test host: what a helpdesk with its own signal and its own history needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection, models
from django.dispatch import Signal

from tests.uuid_host.models import Event
from ticket_priority.priorities import Priority
from ticket_priority.sources import DecisionRecorder, PriorityChange, TicketSource

case_reassessed = Signal()
"""Sent with `case`, `before`, `after` and `user`, after an agent gave another urgency."""


@dataclass(frozen=True, slots=True)
class CaseSource(TicketSource):
    """Reads the body, leaves drafts alone, and tells the host's history."""

    text_fields: tuple[str, ...] = ("body",)

    def connect(self, record: DecisionRecorder) -> None:
        def reassessed(case: Any, before: Any, after: Any, user: Any, **kwargs: Any) -> None:
            record(case, PriorityChange(before, after, user=user, via="desk"))

        case_reassessed.connect(reassessed, weak=False, dispatch_uid="uuid_host.reassessed")

    def wants(self, instance: models.Model) -> bool:
        return not self.text_of(instance).startswith("draft")

    def write_history(self, instance: models.Model, change: PriorityChange, *, using: str) -> None:
        Event.objects.using(using).create(
            case_id=instance.pk,
            before=change.before,
            after=change.after,
            who=getattr(change.user, "username", ""),
            via=change.via,
            reason=change.reason,
        )


@dataclass(frozen=True, slots=True)
class ForgetfulSource(CaseSource):
    """Its history cannot be written, for the database refuses it."""

    def write_history(self, instance: models.Model, change: PriorityChange, *, using: str) -> None:
        Event.objects.using(using).create(case_id=None, via=change.via)


@dataclass(frozen=True, slots=True)
class SavingSource(CaseSource):
    """Writes its history in the course of a save, as some hosts do."""

    def write_history(self, instance: models.Model, change: PriorityChange, *, using: str) -> None:
        case = self.queryset(using).get(pk=instance.pk)
        case.urgency = 1
        case.save()
        case.urgency = change.after
        case.save()

    def decision_on(self, instance: models.Model, change: PriorityChange) -> PriorityChange | None:
        return change


@dataclass(frozen=True, slots=True)
class FormSource(CaseSource):
    """Its pages post every field, so that a save need not be about the urgency."""

    def decision_on(self, instance: models.Model, change: PriorityChange) -> PriorityChange | None:
        deliberate = getattr(instance, "is_about_urgency", False)
        return PriorityChange(change.before, change.after, via="form", incidental=not deliberate)


@dataclass(frozen=True, slots=True)
class QueryingSource(CaseSource):
    """Asks the database for what is not there."""

    def decision_on(self, instance: models.Model, change: PriorityChange) -> PriorityChange | None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM nowhere_at_all")
        return change


@dataclass(frozen=True, slots=True)
class UnreadableSource(CaseSource):
    """Cannot read some of its tickets."""

    def wants(self, instance: models.Model) -> bool:
        return True

    def text_of(self, instance: models.Model) -> str:
        text = super(UnreadableSource, self).text_of(instance)
        if "unreadable" in text:
            raise ValueError("an attachment is broken")
        return text


@dataclass(frozen=True, slots=True)
class BrokenSource(CaseSource):
    """Fails wherever it is asked."""

    def wants(self, instance: models.Model) -> bool:
        if "unwanted" in self.text_of(instance):
            raise LookupError("no such queue")
        return True

    def decision_on(self, instance: models.Model, change: PriorityChange) -> PriorityChange | None:
        raise LookupError("nobody is signed in")


@dataclass(frozen=True, slots=True)
class LabelSource(CaseSource):
    """Knows that a case with an owner bears its owner's word, the default too."""

    def labelled_rows(self, using: str | None = None, *, decided_keys: Any = ()) -> Any:
        owned = models.Q(owner__isnull=False)
        return self.queryset(using).filter(owned | models.Q(pk__in=decided_keys))

    def label_of(self, instance: models.Model) -> Priority | None:
        return self.meaning_of(self.value_of(instance))
