"""The shadow on a model version's page: how it does beside the active one, begin and end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _

from ticket_priority.admin.figures import Cell, table_of
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import shadow
from ticket_priority.priorities import Priority


@dataclass(frozen=True, slots=True)
class ShadowFigures:
    """How a version does, or did, as the shadow. `table` has a row a class of what served."""

    since: datetime
    is_shadow: bool
    answered: int
    failed: int
    waiting: int
    served_by: ModelVersion | None
    compared: int = 0
    agreement: float | None = None
    table: list[tuple[Priority, list[Cell], int]] = field(default_factory=list)


def figures_of(version: ModelVersion) -> ShadowFigures | None:
    """Return the figures of a version that is or was the shadow, None of another."""
    if version.shadow_since is None:
        return None
    answers = version.shadow_predictions
    failed = answers.filter(priority=None).count()
    served_by = shadow.rival_of(version)
    counts = [] if served_by is None else shadow.agreement(version, served_by)
    compared = sum(map(sum, counts))
    agreed = sum(row[place] for place, row in enumerate(counts))
    return ShadowFigures(
        since=version.shadow_since,
        is_shadow=bool(version.is_shadow),
        answered=answers.count() - failed,
        failed=failed,
        waiting=shadow.waiting(version) if version.is_shadow else 0,
        served_by=served_by,
        compared=compared,
        agreement=agreed / compared if compared else None,
        table=table_of(counts) if compared else [],
    )


class ShadowMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Lets the page of a model version begin and end its being the shadow."""

    def has_activate_permission(self, request: HttpRequest) -> bool:
        raise NotImplementedError

    def loads(self, request: HttpRequest, version: ModelVersion, refusal: Any) -> bool:
        raise NotImplementedError

    def get_urls(self) -> list[URLPattern]:
        address = path(
            "<path:object_id>/shadow/",
            self.admin_site.admin_view(self.shadow_view),
            name="ticket_priority_modelversion_shadow",
        )
        return [address, *super().get_urls()]

    def shadow_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make the version the shadow, if it can be loaded, or let it be that no longer."""
        version = self.get_object(request, unquote(object_id))
        if version is None:
            raise Http404
        if not self.has_activate_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if request.POST.get("shadow") == "stop":
            self._stop(request, version)
        else:
            self._start(request, version)
        page = reverse(
            "admin:ticket_priority_modelversion_change",
            args=(quote(version.pk),),
            current_app=self.admin_site.name,
        )
        return HttpResponseRedirect(page)

    def _start(self, request: HttpRequest, version: ModelVersion) -> None:
        if version.is_active:
            text = _("%(name)s is active; another version may be the shadow.")
            self.message_user(request, text % {"name": version.name}, messages.ERROR)
        elif self.loads(request, version, _("%(name)s was not made the shadow: %(error)s")):
            version.start_shadow()
            self.log_change(request, version, str(_("Made the shadow.")))
            text = _("%(name)s is the shadow: it answers new tickets too, and nothing comes of it.")
            self.message_user(request, text % {"name": version.name}, messages.SUCCESS)

    def _stop(self, request: HttpRequest, version: ModelVersion) -> None:
        version.stop_shadow()
        self.log_change(request, version, str(_("No longer the shadow.")))
        text = _("%(name)s is no longer the shadow.")
        self.message_user(request, text % {"name": version.name}, messages.SUCCESS)
