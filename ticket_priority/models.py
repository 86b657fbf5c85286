"""The registry of model versions, the predictions they made, and what people made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import IntegrityError, models, router, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ticket_priority.priorities import Priority
from ticket_priority.signals import model_version_activated
from ticket_priority.ticket_rows import TicketRow, TicketRowQuerySet

_Swapped = TypeVar("_Swapped")


class ModelVersionQuerySet(models.QuerySet["ModelVersion"]):
    def active(self) -> ModelVersion | None:
        """Return the version that serves, or None."""
        return self.filter(is_active=True).first()

    def shadow(self) -> ModelVersion | None:
        """Return the version that answers beside the active one, to no effect, or None."""
        return self.filter(is_shadow=True).first()

    def newest_trained(self) -> ModelVersion | None:
        """Return the newest version that was trained on tickets of this project, or None."""
        return next(
            (one for one in self.order_by("-created_at", "-pk") if not one.is_starter), None
        )


class ModelVersion(models.Model):
    """A published artefact with its figures. At most one is active, and at most one the shadow."""

    name = models.CharField(_("name"), max_length=100, unique=True)
    kind = models.CharField(_("kind"), max_length=50)
    directory = models.CharField(
        _("directory"), max_length=500, help_text=_("Relative to ARTIFACT_ROOT.")
    )
    digest = models.CharField(_("manifest SHA-256"), max_length=64)
    base_model = models.CharField(_("base model"), max_length=300, blank=True)
    metrics = models.JSONField(_("metrics"), default=dict)
    config = models.JSONField(_("training configuration"), default=dict)
    dataset = models.JSONField(_("training data"), default=dict)
    run_directory = models.CharField(_("run directory"), max_length=500, blank=True)
    # True or NULL: a unique column allows many NULLs on every database, so at most one is True.
    is_active = models.BooleanField(
        _("active"), null=True, unique=True, default=None, editable=False
    )
    activated_at = models.DateTimeField(_("activated at"), null=True, blank=True, editable=False)
    is_shadow = models.BooleanField(
        _("shadow"), null=True, unique=True, default=None, editable=False
    )
    shadow_since = models.DateTimeField(_("shadow since"), null=True, blank=True, editable=False)
    shadow_claimed_at = models.DateTimeField(null=True, blank=True, editable=False)
    shadow_attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    load_error = models.TextField(_("load error"), blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    objects = ModelVersionQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        verbose_name = _("model version")
        verbose_name_plural = _("model versions")

    def __str__(self) -> str:
        return self.name

    @property
    def is_starter(self) -> bool:
        """Whether it came with the package, trained on tickets that are nobody's here."""
        return isinstance(self.metrics, dict) and "starter" in self.metrics

    def activate(self) -> None:
        """Make this the serving version; every process follows at its next classification."""
        previous = self._swap(self._swap_active)
        announcement = partial(
            model_version_activated.send_robust,
            sender=type(self),
            model_version=self,
            previous=previous,
        )
        transaction.on_commit(announcement, using=router.db_for_write(type(self)), robust=True)

    def start_shadow(self) -> None:
        """Make this the shadow, in the place of another; raises ValueError for the active one.

        One that is the shadow already goes on, and is tried again where workers died of it.
        """
        if type(self).objects.filter(pk=self.pk, is_active=True).exists():
            raise ValueError(f"{self.name} is active.")
        self._swap(self._swap_shadow)

    def stop_shadow(self) -> None:
        """Let this be the shadow no longer; what it answered stays."""
        self.is_shadow = None
        self.save(update_fields=["is_shadow"])

    @staticmethod
    def _swap(swap: Callable[[], _Swapped]) -> _Swapped:
        using = router.db_for_write(ModelVersion)
        for _attempt in range(2):
            with suppress(IntegrityError), transaction.atomic(using=using):
                return swap()
        # Somebody else chose a version between our two updates, twice.
        with transaction.atomic(using=using):
            return swap()

    def _swap_active(self) -> ModelVersion | None:
        manager = type(self).objects
        previous = manager.select_for_update().filter(is_active=True).first()
        manager.filter(is_active=True).exclude(pk=self.pk).update(is_active=None)
        self.is_active, self.activated_at, self.load_error = True, timezone.now(), ""
        self.is_shadow = None
        self.save(update_fields=["is_active", "activated_at", "load_error", "is_shadow"])
        return previous if previous is not None and previous.pk != self.pk else None

    def _swap_shadow(self) -> None:
        shadows = type(self).objects.filter(is_shadow=True)
        if not shadows.filter(pk=self.pk).exists():
            self.shadow_since = timezone.now()
        shadows.exclude(pk=self.pk).update(is_shadow=None)
        self.is_shadow = True
        self.shadow_claimed_at, self.shadow_attempts, self.load_error = None, 0, ""
        self.save(
            update_fields=[
                "is_shadow",
                "shadow_since",
                "shadow_claimed_at",
                "shadow_attempts",
                "load_error",
            ]
        )


class PredictionQuerySet(TicketRowQuerySet):
    def newest(self) -> Self:
        """Keep the newest row of each ticket among these."""
        newest = self.order_by().values("content_type", "object_id")
        return self.filter(pk__in=newest.annotate(newest=models.Max("pk")).values("newest"))

    def latest_for(self, instances: Iterable[models.Model]) -> dict[str, Any]:
        """Return the newest row of each ticket by `str(pk)`, in one query.

        The tickets must be of one model. Tickets without a row are left out.
        """
        tickets = list(instances)
        if not tickets:
            return {}
        rows = self.for_keys(type(tickets[0]), [ticket.pk for ticket in tickets])
        return {row.object_id: row for row in rows.select_related("model_version").order_by("pk")}

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
        """Return the hash of the text that each ticket was first classified by, by `str(pk)`."""
        rows = self.for_keys(model, keys).exclude(text_hash="").order_by("-pk")
        return dict(rows.values_list("object_id", "text_hash"))

    def undone_keys(self, model: type[models.Model], keys: Iterable[Any]) -> set[str]:
        """Return the tickets, by `str(pk)`, where a stale form put the old value back."""
        rows = self.for_keys(model, keys).filter(reason=Prediction.Reason.STALE_FORM)
        return set(rows.values_list("object_id", flat=True))

    def claimable(self, *, claim_seconds: int) -> PredictionQuerySet:
        """Pending rows that no living worker is busy with, oldest first."""
        expired = timezone.now() - timedelta(seconds=claim_seconds)
        return (
            self.filter(state=Prediction.State.PENDING)
            .filter(models.Q(claimed_at=None) | models.Q(claimed_at__lt=expired))
            .order_by("pk")
        )


class Prediction(TicketRow):
    """What a model version said of a ticket, or that it still has to say it (state pending)."""

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

    # Without a constraint: one that is checked at COMMIT would lose the ticket with the row.
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
    priority = models.PositiveSmallIntegerField(
        _("priority"), choices=Priority.choices, null=True, blank=True
    )
    prob_low = models.FloatField(_("probability of low"), null=True, blank=True)
    prob_medium = models.FloatField(_("probability of medium"), null=True, blank=True)
    prob_high = models.FloatField(_("probability of high"), null=True, blank=True)
    confidence = models.FloatField(_("confidence"), null=True, blank=True)
    latency_ms = models.FloatField(_("latency in ms"), null=True, blank=True)
    text_hash = models.CharField(_("text SHA-256"), max_length=64, blank=True)
    value_before = models.JSONField(
        _("host value before"), null=True, blank=True, encoder=DjangoJSONEncoder
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    claim = models.CharField(max_length=32, blank=True, editable=False)
    claimed_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    decided_at = models.DateTimeField(_("decided at"), null=True, blank=True, editable=False)

    objects = PredictionQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("prediction")
        verbose_name_plural = _("predictions")
        indexes = [
            models.Index(fields=["content_type", "object_id"], name="tp_prediction_ticket"),
            models.Index(fields=["state", "claimed_at"], name="tp_prediction_state"),
        ]

    def __str__(self) -> str:
        label = "?" if self.priority is None else str(Priority(self.priority).label)
        return f"{label} ({self.get_state_display()})"

    @property
    def is_nudge_worthy(self) -> bool:
        """Whether a worker could decide it now."""
        return self.state == self.State.PENDING and self.reason != self.Reason.DISABLED

    @property
    def probabilities(self) -> dict[str, float | None]:
        """The probability of each class by its name; None until classified."""
        return {"low": self.prob_low, "medium": self.prob_medium, "high": self.prob_high}


class ShadowPredictionQuerySet(TicketRowQuerySet):
    def beside(self, served_by: ModelVersion) -> Self:
        """Annotate `served`: what another version said of the same text of the ticket, or None."""
        about = Prediction.objects.filter(
            content_type=models.OuterRef("content_type"),
            object_id=models.OuterRef("object_id"),
            text_hash=models.OuterRef("text_hash"),
            model_version=served_by,
            priority__isnull=False,
        )
        return self.annotate(served=models.Subquery(about.order_by("-pk").values("priority")[:1]))


class ShadowPrediction(TicketRow):
    """What the shadow said of a ticket, to no effect. `priority` is None where it failed."""

    model_version = models.ForeignKey(
        ModelVersion,
        on_delete=models.CASCADE,
        db_constraint=False,
        related_name="shadow_predictions",
        verbose_name=_("model version"),
    )
    priority = models.PositiveSmallIntegerField(
        _("priority"), choices=Priority.choices, null=True, blank=True
    )
    prob_low = models.FloatField(_("probability of low"), null=True, blank=True)
    prob_medium = models.FloatField(_("probability of medium"), null=True, blank=True)
    prob_high = models.FloatField(_("probability of high"), null=True, blank=True)
    confidence = models.FloatField(_("confidence"), null=True, blank=True)
    text_hash = models.CharField(_("text SHA-256"), max_length=64, blank=True)
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
    """A person's decision about a ticket's priority. From equal to to is a confirmation."""

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
        ]

    def __str__(self) -> str:
        before = "-" if self.from_priority is None else Priority(self.from_priority).label
        return f"{before} → {Priority(self.to_priority).label}"


class TrainingRun(models.Model):
    """A run of `train_priority_model`, or the reason why a scheduled one was not begun."""

    class Trigger(models.TextChoices):
        COMMAND = "command", _("command")
        SCHEDULE = "schedule", _("schedule")

    class State(models.TextChoices):
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        REFUSED = "refused", _("refused")
        FAILED = "failed", _("failed")
        INTERRUPTED = "interrupted", _("interrupted")

    trigger = models.CharField(_("trigger"), max_length=10, choices=Trigger.choices)
    state = models.CharField(
        _("state"), max_length=12, choices=State.choices, default=State.RUNNING
    )
    message = models.TextField(_("message"), blank=True)
    # Without a constraint: a row about a run must be no reason why its version cannot be stored.
    model_version = models.ForeignKey(
        ModelVersion,
        on_delete=models.SET_NULL,
        db_constraint=False,
        null=True,
        blank=True,
        related_name="training_runs",
        verbose_name=_("model version"),
    )
    host = models.CharField(_("machine"), max_length=255, blank=True)
    pid = models.PositiveIntegerField(_("process"), null=True, blank=True)
    log = models.CharField(_("log file"), max_length=500, blank=True)
    started_at = models.DateTimeField(_("started at"), default=timezone.now, editable=False)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-started_at", "-pk"]
        verbose_name = _("training run")
        verbose_name_plural = _("training runs")

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M} ({self.get_state_display()})"


def plugin_database() -> str:
    """Return the alias of the database that holds this plugin's rows."""
    return router.db_for_write(Prediction)
