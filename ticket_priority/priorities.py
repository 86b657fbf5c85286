"""The three priorities, which are also the model's class ids."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Priority(models.IntegerChoices):
    """The priority classes. LOW is falsy, so test for `is None`, never for truth."""

    LOW = 0, _("Low")
    MEDIUM = 1, _("Medium")
    HIGH = 2, _("High")

    @property
    def slug(self) -> str:
        """The class name: low, medium or high."""
        return self.name.lower()

    @classmethod
    def from_slug(cls, slug: str) -> Priority:
        """Return the priority called `slug`; raises KeyError for any other word."""
        return cls[slug.upper()]
