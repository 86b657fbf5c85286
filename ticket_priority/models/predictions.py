"""Predictions about tickets, and people's decisions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final, Self

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ticket_priority.models.newest import has_newer, mark_newest
from ticket_priority.models.rows import TicketRow, TicketRowQuerySet
from ticket_priority.models.versions import LARGE_COLUMNS, ModelVersion
from ticket_priority.priorities import Priority


class PredictionQuerySet(TicketRowQuerySet):
    """Predictions, found by ticket and by state."""

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
        """Return the newest row of each ticket by `str(pk)`, in one query.

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
        """Return the class ids that were ever applied to each ticket, by `str(pk)`."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        rows = self.for_keys(model, keys).filter(state=Prediction.State.APPLIED)
        for key, priority in rows.values_list("object_id", "priority"):
            found[key].add(priority)
        return found

    def first_hashes(self, model: type[models.Model], keys: Iterable[Any]) -> dict[str, str]:
        """Return the hash of the first text classified of each ticket, by `str(pk)`."""
        rows = self.for_keys(model, keys).exclude(text_hash="").order_by("-pk")
        return dict(rows.values_list("object_id", "text_hash"))

    def undone_keys(self, model: type[models.Model], keys: Iterable[Any]) -> set[str]:
        """Return the tickets, by `str(pk)`, where a stale form restored the old value."""
        return self.filter(reason=Prediction.Reason.STALE_FORM).keys_among(model, keys)

    def claimable(self, *, claim_seconds: int) -> PredictionQuerySet:
        """Keep the pending rows that no worker holds a valid claim on, oldest first."""
        expired = timezone.now() - timedelta(seconds=claim_seconds)
        return (
            self.filter(state=Prediction.State.PENDING)
            .filter(models.Q(claimed_at=None) | models.Q(claimed_at__lt=expired))
            .order_by("pk")
        )


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


class ShadowPredictionQuerySet(TicketRowQuerySet):
    """The shadow's answers, beside those that were served."""

    def beside(self, served_by: ModelVersion) -> Self:
        """Annotate `served`: another version's class for the same ticket and text, or None."""
        about = Prediction.objects.filter(
            content_type=models.OuterRef("content_type"),
            object_id=models.OuterRef("object_id"),
            text_hash=models.OuterRef("text_hash"),
            model_version=served_by,
            priority__isnull=False,
        )
        return self.annotate(served=models.Subquery(about.order_by("-pk").values("priority")[:1]))


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


ABOUT_TICKETS: Final = (Override, Prediction, ShadowPrediction)
"""The tables with rows about tickets, in the order in which their rows are deleted."""


def plugin_database() -> str:
    """Return the alias of the database that holds this plugin's rows."""
    return router.db_for_write(Prediction)
