"""The history of the kill switch: when, by which user and why it was switched."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _


class SwitchChange(models.Model):
    """A change of the kill switch; the newest row holds its state. Rows are only added."""

    is_on = models.BooleanField(_("on"))
    reason = models.TextField(_("reason"), blank=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("user"),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    class Meta:
        ordering = ["-pk"]
        verbose_name = _("switch")
        verbose_name_plural = _("switch")

    def __str__(self) -> str:
        return gettext("switched on") if self.is_on else gettext("switched off")

    @classmethod
    def newest(cls, field: str) -> models.Subquery:
        """Return a column of the newest row, for annotations; NULL where there is no row."""
        return models.Subquery(cls.objects.values(field)[:1])
