from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.timesince import timesince
from django.utils.translation import gettext_lazy as _

from ticket_priority.admin.records import ReadOnlyAdmin
from ticket_priority.models import TrainingRun
from ticket_priority.training.history import settle_dead


@admin.register(TrainingRun)
class TrainingRunAdmin(ReadOnlyAdmin):
    """List training runs with their outcome."""

    list_display = ("started_at", "state", "trigger", "took", "model_version", "message")
    list_filter = ("state", "trigger")
    list_select_related = ("model_version",)
    fields = (
        "state",
        "message",
        "trigger",
        "started_at",
        "finished_at",
        "model_version",
        "log",
        "host",
        "pid",
    )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        settle_dead()
        return super().changelist_view(request, extra_context)

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        settle_dead()
        return super().change_view(request, *args, **kwargs)

    @admin.display(description=_("took"))
    def took(self, run: TrainingRun) -> str | None:
        return None if run.finished_at is None else timesince(run.started_at, run.finished_at)
