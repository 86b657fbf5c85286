"""Sources that fail at some tickets, and an admin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.db import models

from ticket_priority.admin import OverrideAdminMixin
from ticket_priority.sources import TicketSource


@dataclass(frozen=True, slots=True)
class BreakingSource(TicketSource):
    """Cannot write some of its tickets."""

    def compare_and_set(self, pk: Any, **options: Any) -> bool:
        if self.queryset(options["using"]).filter(pk=pk, body="broken").exists():
            raise LookupError("the archive does not answer")
        return super(BreakingSource, self).compare_and_set(pk, **options)


@dataclass(frozen=True, slots=True)
class UnreadableSource(TicketSource):
    """Cannot read some of its tickets."""

    def text_of(self, instance: models.Model) -> str:
        text = super(UnreadableSource, self).text_of(instance)
        if text == "broken":
            raise LookupError("an attachment is broken")
        return text


class TicketAdmin(OverrideAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    def log_change(self, *args: Any) -> Any:
        """Keep no log."""
