"""The list of model versions: their figures, which of them serves, and which is the shadow."""

from __future__ import annotations

import logging
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ticket_priority.admin.figures import MEASURED, Figures, table_of
from ticket_priority.admin.records import FixedAdmin, page_of
from ticket_priority.classifiers import load, store_load_error
from ticket_priority.conf import get_settings
from ticket_priority.models import ModelVersion, ShadowPrediction
from ticket_priority.predictions.shadow import rival_of
from ticket_priority.priorities import Priority
from ticket_priority.reports import shadow
from ticket_priority.reports.audit import audit_agreement
from ticket_priority.sources.registry import all_sources

logger = logging.getLogger(__name__)

_MOST_AUDITED: Final = 2000
"""The newest tickets that a page compares. Ten thousand of them took it three seconds."""


@admin.register(ModelVersion)
class ModelVersionAdmin(FixedAdmin):
    """Compare, activate and delete the versions that training made, and choose the shadow."""

    list_display = (
        "name",
        "status",
        "base_model",
        "rows",
        "accuracy",
        "macro_f1",
        "created_at",
        "activated_at",
    )
    search_fields = ("name", "base_model")
    readonly_fields = ("status",)
    change_form_template = "admin/ticket_priority/modelversion/change_form.html"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = ["name", "status", "base_model", "kind", "created_at", "activated_at"]
        if obj is not None and obj.load_error:
            fields.insert(2, "load_error")
        return fields

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ticket_priority.change_modelversion")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and _why_kept(obj):
            return False
        return super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions = super().get_actions(request)
        # It would delete versions that must be kept. A version's page says whether it may go.
        actions.pop("delete_selected", None)
        return actions

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Count the shadow's answers, of which there may be very many, instead of listing them."""
        answers = ShadowPrediction.objects.filter(model_version__in=objs).count()
        counts = {
            str(ModelVersion._meta.verbose_name_plural): len(objs),
            str(ShadowPrediction._meta.verbose_name_plural): answers,
        }
        return [str(version) for version in objs], counts, set(), []

    def delete_model(self, request: HttpRequest, obj: ModelVersion) -> None:
        super().delete_model(request, obj)
        folder = get_settings().artifact_root / obj.directory
        text = _("The files of %(name)s were left in %(folder)s.")
        self.message_user(request, text % {"name": obj.name, "folder": folder}, messages.INFO)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        version = self.get_object(request, unquote(object_id))
        context = dict(extra_context or {})
        if version is not None:
            context |= {
                "figures": Figures(version),
                "measured": MEASURED,
                "audit": audit_agreement(version, all_sources(), newest=_MOST_AUDITED),
                "shadow": _shadow_figures(version),
                "priorities": list(Priority),
                "may_activate": self.has_activate_permission(request) and not version.is_active,
                "why_kept": _why_kept(version),
            }
        return super().change_view(request, object_id, form_url, context)

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<path:object_id>/{word}/",
                self.admin_site.admin_view(view),
                name=f"ticket_priority_modelversion_{word}",
            )
            for word, view in (("activate", self.activate_view), ("shadow", self.shadow_view))
        ]
        return [*own, *super().get_urls()]

    def activate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, and on POST make the version serve, if it can be loaded."""
        version = self._get_version(request, object_id)
        if request.method == "POST":
            self._activate(request, version)
            return self._to_page_of(version)
        active = ModelVersion.objects.active()
        context = {
            **self.admin_site.each_context(request),
            "title": _("Activate a model version"),
            "opts": self.opts,
            "media": self.media,
            "version": version,
            "active": active,
            "candidates": [
                (label, one.name, Figures(one))
                for label, one in ((_("Serves now"), active), (_("To be activated"), version))
                if one is not None
            ],
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request, "admin/ticket_priority/modelversion/activate.html", context
        )

    def _activate(self, request: HttpRequest, version: ModelVersion) -> None:
        if self._can_load(request, version, _("%(name)s was not activated: %(error)s")):
            version.activate()
            text = _("%(name)s is active. Every process follows at its next classification.")
            self._tell(request, version, _("Activated."), text)

    def shadow_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Start the version as the shadow, if it can be loaded, or stop it."""
        version = self._get_version(request, object_id)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if request.POST.get("shadow") == "stop":
            version.stop_shadow()
            text = _("%(name)s is no longer the shadow.")
            self._tell(request, version, _("No longer the shadow."), text)
        else:
            self._start_shadow(request, version)
        return self._to_page_of(version)

    def _start_shadow(self, request: HttpRequest, version: ModelVersion) -> None:
        if version.is_active:
            text = _("%(name)s is active; another version may be the shadow.")
            self.message_user(request, text % {"name": version.name}, messages.ERROR)
        elif self._can_load(request, version, _("%(name)s was not made the shadow: %(error)s")):
            version.start_shadow()
            text = _("%(name)s is the shadow: it answers new tickets too, and nothing comes of it.")
            self._tell(request, version, _("Made the shadow."), text)

    def _tell(self, request: HttpRequest, version: ModelVersion, change: Any, text: Any) -> None:
        """Log a change of the version, and show the user a text about it."""
        self.log_change(request, version, str(change))
        self.message_user(request, text % {"name": version.name}, messages.SUCCESS)

    def _get_version(self, request: HttpRequest, object_id: str) -> ModelVersion:
        """Return the version to act on; raises Http404 and PermissionDenied."""
        version: ModelVersion | None = self.get_object(request, unquote(object_id))
        if version is None:
            raise Http404
        if not self.has_activate_permission(request):
            raise PermissionDenied
        return version

    def _to_page_of(self, version: ModelVersion) -> HttpResponseRedirect:
        return HttpResponseRedirect(page_of(self.admin_site, ModelVersion, version.pk))

    def _can_load(self, request: HttpRequest, version: ModelVersion, refusal: Any) -> bool:
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

    @admin.display(description=_("status"), ordering="is_active")
    def status(self, version: ModelVersion) -> SafeString | str:
        marks = []
        if version.load_error:
            broken = (
                _("active, but cannot be loaded") if version.is_active else _("cannot be loaded")
            )
            marks.append(("error", broken))
        elif version.is_active:
            marks.append(("active", _("active")))
        if version.is_shadow:
            marks.append(("shadow", _("shadow")))
        if version.is_starter:
            marks.append(("starter", _("starter")))
        return format_html_join(" ", '<span class="tp-mark tp-mark--{}">{}</span>', marks) or "–"

    @admin.display(description=_("rows"))
    def rows(self, version: ModelVersion) -> int | None:
        return Figures(version).rows

    @admin.display(description=_("accuracy"))
    def accuracy(self, version: ModelVersion) -> str | None:
        return _three_places(Figures(version).metrics.own.figure("accuracy"))

    @admin.display(description=_("macro F1"))
    def macro_f1(self, version: ModelVersion) -> SafeString | str | None:
        figures = Figures(version)
        own = _three_places(figures.metrics.own.figure("macro_f1"))
        baselines = [
            f"{label} {_three_places(figure)}"
            for label, figure in (
                (_("TF-IDF + LR"), figures.figure("tfidf_logreg", "macro_f1")),
                (_("majority"), figures.figure("majority", "macro_f1")),
            )
            if figure is not None
        ]
        if own is None or not baselines:
            return own
        return format_html(
            '{} <span class="tp-baselines tp-quiet">{}</span>', own, ", ".join(baselines)
        )


def _why_kept(version: ModelVersion) -> str:
    """Return why a version cannot be deleted; empty when it can."""
    if version.is_active:
        return str(_("It is active; activate another version first."))
    if version.is_shadow:
        return str(_("It is the shadow; end that first."))
    number = version.predictions.count()
    if number:
        text = ngettext(
            "%(number)d prediction refers to it.", "%(number)d predictions refer to it.", number
        )
        return text % {"number": number}
    return ""


def _shadow_figures(version: ModelVersion) -> dict[str, Any] | None:
    """Return what a version answered as the shadow, or None where it never was."""
    if version.shadow_since is None:
        return None
    served_by = rival_of(version)
    found = shadow.counts(version, served_by)
    return {**found, "served_by": served_by, "table": table_of(found["agreement"]["table"])}


def _three_places(figure: float | None) -> str | None:
    return None if figure is None else f"{figure:.3f}"
