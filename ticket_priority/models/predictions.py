"""Predictions about tickets, and people's decisions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, Self

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections, models, router
from django.db.models.functions import Cast
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ticket_priority.db import unclaimed
from ticket_priority.models.newest import has_newer, mark_newest
from ticket_priority.models.rows import TicketRow, TicketRowQuerySet, content_type_of
from ticket_priority.models.versions import LARGE_COLUMNS, ModelVersion
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource, all_sources
from ticket_priority.sources.keys import key_column
from ticket_priority.sources.refusals import may_lack_value


class PredictionQuerySet(TicketRowQuerySet):
    """Predictions, found by ticket and by state."""

    def erase(self) -> int:
        """Delete these rows, and remember which tickets they were about; return their number."""
        applied = self.filter(state=Prediction.State.APPLIED).order_by()
        about = applied.values_list("content_type", "object_id").distinct()
        erased = [ErasedTicket(content_type_id=of, object_id=key) for of, key in about]
        ErasedTicket.objects.using(self.db).bulk_create(erased, ignore_conflicts=True)
        return super().erase()

    def newest(self) -> Self:
        """Keep the rows that are the newest about their ticket."""
        return self.filter(~has_newer(self))

    def marked_newest(self) -> Self:
        """Return the same rows for whole tables: by their mark, as far as all rows have one."""
        is_unmarked = Prediction.objects.using(self.db).filter(is_newest=None).exists()
        return self.newest() if is_unmarked else self.filter(is_newest=True)

    def mark_newest(self) -> int:
        """Mark the rows without a mark, such as those of `bulk_create`; return their number."""
        return mark_newest(self)

    def with_version(self) -> Self:
        """Read the model version too, without its figures."""
        large = (f"model_version__{name}" for name in LARGE_COLUMNS)
        return self.select_related("model_version").defer(*large)

    def latest_for(self, instances: Iterable[models.Model]) -> dict[str, Any]:
        """Return the newest row of each ticket by `key_text`, in one query.

        The tickets must be of one model. Tickets without a row are left out.
        """
        tickets = list(instances)
        if not tickets:
            return {}
        rows = self.for_keys(type(tickets[0]), [ticket.pk for ticket in tickets])
        return {row.object_id: row for row in rows.newest().with_version()}

    def applied_values(
        self, model: type[models.Model], keys: Iterable[Any]
    ) -> defaultdict[str, set[int]]:
        """Return the class ids that were ever applied to each ticket, by `key_text`."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        rows = self.for_keys(model, keys).filter(state=Prediction.State.APPLIED)
        for key, priority in rows.values_list("object_id", "priority"):
            found[key].add(priority)
        return found

    def values_at_creation(
        self, source: TicketSource, keys: Iterable[Any]
    ) -> defaultdict[str, set[Any]]:
        """Return the values that each ticket got as its table takes none without, by `key_text`.

        Takes no query where the table takes such tickets.
        """
        found: defaultdict[str, set[Any]] = defaultdict(set)
        if not may_lack_value(source):
            return found
        # Only `classify_instances` stores rows that no worker claimed and that were tried.
        rows = self.for_keys(source.model, keys).exclude(attempts__gte=1, claimed_at=None)
        for key, value in rows.values_list("object_id", "value_before"):
            found[key].add(value)
        return found

    def first_applied(
        self, model: type[models.Model], hashes: Iterable[str]
    ) -> dict[tuple[str, int], Any]:
        """Return by text hash and class the least key of the tickets that got it, if an integer.

        For other keys it is the time of the first of these predictions.
        """
        rows = self.for_model(model).filter(state=Prediction.State.APPLIED, text_hash__in=hashes)
        number = Cast("object_id", models.BigIntegerField())
        first = number if isinstance(key_column(model), models.IntegerField) else "created_at"
        found = (
            rows.order_by().values_list("text_hash", "priority").annotate(least=models.Min(first))
        )
        return {(text_hash, priority): least for text_hash, priority, least in found}

    def first_hashes(self, model: type[models.Model], keys: Iterable[Any]) -> dict[str, str]:
        """Return the hash of the first text classified of each ticket, by `key_text`."""
        rows = self.for_keys(model, keys).exclude(text_hash="").order_by("-pk")
        return dict(rows.values_list("object_id", "text_hash"))

    def shown(self) -> Self:
        """Exclude what is held back: the audit slice's answers until a decision is recorded."""
        decided = models.Exists(
            Override.objects.order_by().filter(
                content_type=models.OuterRef("content_type"), object_id=models.OuterRef("object_id")
            )
        )
        if connections[self.db].vendor == "mysql":
            is_shown = ~models.Q(reason=Prediction.Reason.AUDIT) | models.Q(decided)
            return self.filter(is_shown)
        # A join: for an OR, PostgreSQL plans to look at the overrides for each row.
        held_back = Prediction.objects.order_by().filter(
            ~decided, pk=models.OuterRef("pk"), reason=Prediction.Reason.AUDIT
        )
        return self.filter(~models.Exists(held_back))

    def claimable(self, *, claim_seconds: int) -> PredictionQuerySet:
        """Keep the pending rows that no worker holds a valid claim on, oldest first.

        Those of models that are no source in this process are left to processes with other code.
        """
        known = [content_type_of(source.model).pk for source in all_sources()]
        pending = self.filter(state=Prediction.State.PENDING, content_type__in=known)
        return pending.filter(unclaimed("claimed_at", claim_seconds)).order_by("pk")


class Answer(TicketRow):
    """A model's answer about the text with a hash; the figures are None without an answer."""

    priority = models.PositiveSmallIntegerField(
        _("priority"), choices=Priority.choices, null=True, blank=True
    )
    prob_low = models.FloatField(_("probability of low"), null=True, blank=True)
    prob_medium = models.FloatField(_("probability of medium"), null=True, blank=True)
    prob_high = models.FloatField(_("probability of high"), null=True, blank=True)
    confidence = models.FloatField(_("confidence"), null=True, blank=True)
    text_hash = models.CharField(_("text SHA-256"), max_length=64, blank=True)

    class Meta:
        abstract = True


class Prediction(Answer):
    """A model version's answer about a ticket, or a pending request for one."""

    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        APPLIED = "applied", _("applied")
        SUGGESTED = "suggested", _("suggested")
        SUPERSEDED = "superseded", _("superseded")
        ABSTAINED = "abstained", _("abstained")
        FAILED = "failed", _("failed")

    class Reason(models.TextChoices):
        OK = "ok", _("classified")
        QUEUED = "queued", _("waiting for a worker")
        NO_MODEL = "no_model", _("no model is active")
        MODEL_ERROR = "model_error", _("the model failed")
        DISABLED = "disabled", _("classification is switched off")
        EMPTY_TEXT = "empty_text", _("the ticket has no text")
        PERSON_DECIDED = "person_decided", _("a person decided first")
        TICKET_GONE = "ticket_gone", _("the ticket is gone")
        REPLACED = "replaced", _("a newer prediction took its place")
        STALE_FORM = "stale_form", _("a form opened before it put the old value back")
        UNCERTIFIED = "uncertified", _("below the certified precision")
        AUDIT = "audit", _("held back to check the model")
        DEADLINE = "deadline", _("the model took too long")
        OVERLOADED = "overloaded", _("the model is overloaded")
        BREAKER_OPEN = "breaker_open", _("the model is left alone after failing")
        REFUSED = "refused", _("the helpdesk does not take it")

    # Without a constraint: a violation at COMMIT would lose the ticket too.
    model_version = models.ForeignKey(
        ModelVersion,
        on_delete=models.PROTECT,
        db_constraint=False,
        null=True,
        blank=True,
        related_name="predictions",
        verbose_name=_("model version"),
    )
    mode = models.CharField(_("mode"), max_length=10)
    state = models.CharField(_("state"), max_length=12, choices=State.choices)
    reason = models.CharField(_("reason"), max_length=20, choices=Reason.choices)
    latency_ms = models.FloatField(_("latency in ms"), null=True, blank=True)
    value_before = models.JSONField(
        _("host value before"), null=True, blank=True, encoder=DjangoJSONEncoder
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    claim = models.CharField(max_length=32, blank=True, editable=False)
    claimed_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    decided_at = models.DateTimeField(_("decided at"), null=True, blank=True, editable=False)
    # None: not known, for rows that came by another way than `save_about`.
    is_newest = models.BooleanField(null=True, default=None, editable=False)

    objects = PredictionQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("prediction")
        verbose_name_plural = _("predictions")
        indexes = [
            models.Index(
                fields=["content_type", "object_id", "id"], name="tp_prediction_of_ticket"
            ),
            models.Index(fields=["state", "claimed_at"], name="tp_prediction_state"),
            models.Index(fields=["text_hash"], name="tp_prediction_text"),
            models.Index(fields=["reason"], name="tp_prediction_reason"),
            models.Index(
                fields=["is_newest", "content_type", "state", "reason", "confidence", "object_id"],
                name="tp_prediction_newest",
            ),
        ]

    def __str__(self) -> str:
        label = "?" if self.priority is None else str(Priority(self.priority).label)
        return f"{label} ({self.get_state_display()})"

    @property
    def needs_worker(self) -> bool:
        """Whether a worker can decide it."""
        return self.state == self.State.PENDING and self.reason != self.Reason.DISABLED

    @property
    def probabilities(self) -> dict[str, float | None]:
        """The probability of each class by its name; None until classified."""
        return {"low": self.prob_low, "medium": self.prob_medium, "high": self.prob_high}

    @property
    def ranked_probabilities(self) -> list[tuple[Priority, float]]:
        """Each class with its probability, the highest priority first; empty until classified."""
        pairs = [(priority, self.probabilities[priority.slug]) for priority in reversed(Priority)]
        return [(priority, share) for priority, share in pairs if share is not None]


class ShadowPredictionQuerySet(TicketRowQuerySet):
    """The shadow's answers, beside those that were served."""

    def beside(self, served_by: ModelVersion) -> Self:
        """Annotate `served`: another version's class for the same ticket and text, or None.

        What is held back is None.
        """
        about = Prediction.objects.filter(
            content_type=models.OuterRef("content_type"),
            object_id=models.OuterRef("object_id"),
            text_hash=models.OuterRef("text_hash"),
            model_version=served_by,
            priority__isnull=False,
        )
        newest = about.shown().order_by("-pk").values("priority")[:1]
        return self.annotate(served=models.Subquery(newest))


class ShadowPrediction(Answer):
    """The shadow's answer about a ticket, without effect; `priority` is None where it failed."""

    model_version = models.ForeignKey(
        ModelVersion,
        on_delete=models.CASCADE,
        db_constraint=False,
        related_name="shadow_predictions",
        verbose_name=_("model version"),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    objects = ShadowPredictionQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("shadow prediction")
        verbose_name_plural = _("shadow predictions")
        constraints = [
            models.UniqueConstraint(
                fields=["content_type", "object_id", "model_version"],
                name="tp_shadow_ticket_version",
            ),
        ]

    def __str__(self) -> str:
        return "?" if self.priority is None else str(Priority(self.priority).label)


class Override(TicketRow):
    """A person's decision about a priority; a confirmation where both priorities are equal."""

    prediction = models.ForeignKey(
        Prediction,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="overrides",
        verbose_name=_("prediction"),
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("user"),
    )
    from_priority = models.PositiveSmallIntegerField(
        _("from"), choices=Priority.choices, null=True, blank=True
    )
    to_priority = models.PositiveSmallIntegerField(_("to"), choices=Priority.choices)
    reason = models.TextField(_("reason"), blank=True)
    via = models.CharField(_("via"), max_length=20, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    objects = TicketRowQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("override")
        verbose_name_plural = _("overrides")
        indexes = [
            models.Index(fields=["content_type", "object_id"], name="tp_override_ticket"),
            models.Index(fields=["user", "created_at"], name="tp_override_user"),
        ]

    def __str__(self) -> str:
        before = "-" if self.from_priority is None else Priority(self.from_priority).label
        return f"{before} → {Priority(self.to_priority).label}"


class ErasedTicket(TicketRow):
    """A ticket whose predictions were erased.

    It may come back from a backup or a history with the priority that was predicted.
    """

    objects = TicketRowQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["content_type", "object_id"], name="tp_erased_ticket"),
        ]

    def __str__(self) -> str:
        return self.object_id


ABOUT_TICKETS: Final = (Override, Prediction, ShadowPrediction)
"""The tables with rows about tickets, in the order in which their rows are deleted."""


def plugin_database() -> str:
    """Return the alias of the database that holds this plugin's rows."""
    return router.db_for_write(Prediction)
