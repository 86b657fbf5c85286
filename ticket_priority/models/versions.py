"""The registry of model versions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from django.db import IntegrityError, models, router, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ticket_priority.db import after_commit
from ticket_priority.signals import model_version_activated

_Swapped = TypeVar("_Swapped")

LARGE_COLUMNS: Final = ("metrics", "config", "dataset")
"""The columns that lists leave out: they may hold many kilobytes."""


class ModelVersionQuerySet(models.QuerySet["ModelVersion"]):
    """Model versions, found by role."""

    def active(self) -> ModelVersion | None:
        """Return the active version, or None."""
        return self.filter(is_active=True).first()

    def shadow(self) -> ModelVersion | None:
        """Return the shadow, or None."""
        return self.filter(is_shadow=True).first()

    def previous(self) -> ModelVersion | None:
        """Return the version that was active before the active one, or None."""
        earlier = self.filter(is_active=None).exclude(activated_at=None)
        return earlier.order_by("-activated_at").first()

    def newest_trained(self) -> ModelVersion | None:
        """Return the newest version that was trained on tickets of this project, or None."""
        newest_first = self.order_by("-created_at", "-pk")
        return next((version for version in newest_first if not version.is_starter), None)


class ModelVersion(models.Model):
    """A published artifact with its figures. At most one is active, and at most one the shadow."""

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
    def identity(self) -> tuple[str, str]:
        """What tells it from others: in another schema, or after a restore, a key does not."""
        return self.name, self.digest

    @property
    def is_starter(self) -> bool:
        """Whether it is a starter, which was not trained on this project's tickets."""
        return isinstance(self.metrics, dict) and "starter" in self.metrics

    def activate(self) -> None:
        """Make this the active version; each process loads it at its next classification."""
        previous = self._swap(self._swap_active)
        announcement = partial(
            model_version_activated.send_robust,
            sender=type(self),
            model_version=self,
            previous=previous,
        )
        after_commit(announcement, using=router.db_for_write(type(self)))

    def start_shadow(self) -> None:
        """Make this the shadow, replacing another; raises ValueError for the active version.

        Where it already is the shadow, its count of workers that died is reset.
        """
        if type(self).objects.filter(pk=self.pk, is_active=True).exists():
            raise ValueError(f"{self.name} is active.")
        self._swap(self._swap_shadow)

    def stop_shadow(self) -> None:
        """Make this the shadow no longer; its answers stay."""
        self.is_shadow = None
        self.save(update_fields=["is_shadow"])

    @staticmethod
    def _swap(swap: Callable[[], _Swapped]) -> _Swapped:
        using = router.db_for_write(ModelVersion)
        for _attempt in range(2):
            with suppress(IntegrityError), transaction.atomic(using=using):
                return swap()
        # Another process changed the version between our two updates, twice.
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
