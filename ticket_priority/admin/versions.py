"""The registry of model versions: figures to read, and the choice of the one that serves."""

from __future__ import annotations

import logging
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ticket_priority import classifiers
from ticket_priority.admin.figures import MEASURED, Figures
from ticket_priority.admin.shadow import ShadowMixin, figures_of
from ticket_priority.conf import get_settings
from ticket_priority.models import ModelVersion, ShadowPrediction
from ticket_priority.priorities import Priority
from ticket_priority.reports.audit import audit_agreement
from ticket_priority.sources.registry import all_sources

logger = logging.getLogger(__name__)

_MOST_AUDITED: Final = 2000
"""Ten thousand took a page three seconds."""


@admin.register(ModelVersion)
class ModelVersionAdmin(ShadowMixin):
    """Versions come from training; here they are compared, activated, and cleared away."""

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

    class Media:
        css = {"all": ["ticket_priority/badge.css", "ticket_priority/admin.css"]}

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = ["name", "status", "base_model", "kind", "created_at", "activated_at"]
        if obj is not None and obj.load_error:
            fields.insert(2, "load_error")
        return fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ticket_priority.change_modelversion")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and _why_kept(obj):
            return False
        return super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions = super().get_actions(request)
        # It knows no version that must stay; its page says which may go.
        actions.pop("delete_selected", None)
        return actions

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Count the shadow's answers, which may be very many, where Django would list each."""
        answers = ShadowPrediction.objects.filter(model_version__in=objs).count()
        counts = {
            str(ModelVersion._meta.verbose_name_plural): len(objs),
            str(ShadowPrediction._meta.verbose_name_plural): answers,
        }
        return [str(version) for version in objs], counts, set(), []

    def delete_model(self, request: HttpRequest, obj: ModelVersion) -> None:
        super().delete_model(request, obj)
        folder = get_settings().artifact_root / obj.directory
        self.message_user(
            request,
            _("The files of %(name)s were left in %(folder)s.")
            % {"name": obj.name, "folder": folder},
            messages.INFO,
        )

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
                "measured": [label for _name, label in MEASURED],
                "audit": audit_agreement(version, all_sources(), newest=_MOST_AUDITED),
                "shadow": figures_of(version),
                "priorities": list(Priority),
                "may_activate": self.has_activate_permission(request) and not version.is_active,
                "why_kept": _why_kept(version),
            }
        return super().change_view(request, object_id, form_url, context)

    def get_urls(self) -> list[URLPattern]:
        activate = path(
            "<path:object_id>/activate/",
            self.admin_site.admin_view(self.activate_view),
            name="ticket_priority_modelversion_activate",
        )
        return [activate, *super().get_urls()]

    def activate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, and on POST make the version serve, if it can be loaded."""
        version = self.get_object(request, unquote(object_id))
        if version is None:
            raise Http404
        if not self.has_activate_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            self._activate(request, version)
            page = reverse(
                "admin:ticket_priority_modelversion_change",
                args=(quote(version.pk),),
                current_app=self.admin_site.name,
            )
            return HttpResponseRedirect(page)
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

    def loads(self, request: HttpRequest, version: ModelVersion, refusal: Any) -> bool:
        """Say whether a version can be loaded; where it cannot, store why, and show the refusal."""
        try:
            # A version that cannot be loaded must not be made to serve.
            classifiers.load(version)
        except Exception as error:
            # Whatever a broken artifact raises, the page must say it.
            logger.exception("Model version %s cannot be loaded", version.name)
            text = str(error) or type(error).__name__
            ModelVersion.objects.filter(pk=version.pk).update(load_error=text[:2000])
            self.message_user(
                request,
                refusal % {"name": version.name, "error": text},
                messages.ERROR,
            )
            return False
        return True

    def _activate(self, request: HttpRequest, version: ModelVersion) -> None:
        if not self.loads(request, version, _("%(name)s was not activated: %(error)s")):
            return
        version.activate()
        self.log_change(request, version, str(_("Activated.")))
        self.message_user(
            request,
            _("%(name)s is active. Every process follows at its next classification.")
            % {"name": version.name},
            messages.SUCCESS,
        )

    @admin.display(description=_("status"), ordering="is_active")
    def status(self, version: ModelVersion) -> SafeString | str:
        marks = []
        if version.is_active and version.load_error:
            marks.append(_mark("error", _("active, but cannot be loaded")))
        elif version.is_active:
            marks.append(_mark("active", _("active")))
        elif version.load_error:
            marks.append(_mark("error", _("cannot be loaded")))
        if version.is_shadow:
            marks.append(_mark("shadow", _("shadow")))
        if version.is_starter:
            marks.append(_mark("starter", _("starter")))
        return format_html_join(" ", "{}", ((mark,) for mark in marks)) or "–"

    @admin.display(description=_("rows"))
    def rows(self, version: ModelVersion) -> int | None:
        return Figures(version).rows

    @admin.display(description=_("accuracy"))
    def accuracy(self, version: ModelVersion) -> str | None:
        return _three_places(Figures(version).own_figure("accuracy"))

    @admin.display(description=_("macro F1"))
    def macro_f1(self, version: ModelVersion) -> SafeString | str | None:
        figures = Figures(version)
        own = _three_places(figures.own_figure("macro_f1"))
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
    """Say why a version cannot be deleted; empty when it can."""
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


def _mark(kind: str, text: Any) -> SafeString:
    return format_html('<span class="tp-mark tp-mark--{}">{}</span>', kind, text)


def _three_places(figure: float | None) -> str | None:
    return None if figure is None else f"{figure:.3f}"
