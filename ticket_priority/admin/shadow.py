"""The shadow on a model version's page: its figures beside the active version, start and stop."""

from __future__ import annotations

import logging
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
from ticket_priority.classifiers import load, store_load_error
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import shadow
from ticket_priority.priorities import Priority

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShadowFigures:
    """What a version answered as the shadow.

    `table` compares the answers, with a row for each class of the version that served.
    """

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
    """Return the figures of a version that is or was the shadow, or None for any other."""
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
    """Lets the page of a model version start and stop it as the shadow."""

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ticket_priority.change_modelversion")

    def get_version(self, request: HttpRequest, object_id: str) -> ModelVersion:
        """Return the version to act on; raises Http404 and PermissionDenied."""
        version = self.get_object(request, unquote(object_id))
        if version is None:
            raise Http404
        if not self.has_activate_permission(request):
            raise PermissionDenied
        found: ModelVersion = version
        return found

    def to_page_of(self, version: ModelVersion) -> HttpResponseRedirect:
        """Redirect to the page of a version."""
        page = reverse(
            "admin:ticket_priority_modelversion_change",
            args=(quote(version.pk),),
            current_app=self.admin_site.name,
        )
        return HttpResponseRedirect(page)

    def can_load(self, request: HttpRequest, version: ModelVersion, refusal: Any) -> bool:
        """Try to load a version; where that fails, store the error and show the refusal."""
        try:
            load(version)
        except Exception as error:
            # A broken artifact may raise anything.
            logger.exception("Model version %s cannot be loaded", version.name)
            text = str(error) or type(error).__name__
            store_load_error(version, text)
            self.message_user(
                request, refusal % {"name": version.name, "error": text}, messages.ERROR
            )
            return False
        return True

    def get_urls(self) -> list[URLPattern]:
        address = path(
            "<path:object_id>/shadow/",
            self.admin_site.admin_view(self.shadow_view),
            name="ticket_priority_modelversion_shadow",
        )
        return [address, *super().get_urls()]

    def shadow_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Start the version as the shadow, if it can be loaded, or stop it."""
        version = self.get_version(request, object_id)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if request.POST.get("shadow") == "stop":
            self._stop(request, version)
        else:
            self._start(request, version)
        return self.to_page_of(version)

    def _start(self, request: HttpRequest, version: ModelVersion) -> None:
        if version.is_active:
            text = _("%(name)s is active; another version may be the shadow.")
            self.message_user(request, text % {"name": version.name}, messages.ERROR)
        elif self.can_load(request, version, _("%(name)s was not made the shadow: %(error)s")):
            version.start_shadow()
            self.log_change(request, version, str(_("Made the shadow.")))
            text = _("%(name)s is the shadow: it answers new tickets too, and nothing comes of it.")
            self.message_user(request, text % {"name": version.name}, messages.SUCCESS)

    def _stop(self, request: HttpRequest, version: ModelVersion) -> None:
        version.stop_shadow()
        self.log_change(request, version, str(_("No longer the shadow.")))
        text = _("%(name)s is no longer the shadow.")
        self.message_user(request, text % {"name": version.name}, messages.SUCCESS)
