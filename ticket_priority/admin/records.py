"""Read-only pages of predictions and overrides."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.contenttypes.models import ContentType
from django.db import models, router
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ticket_priority.badges import percent, priority_badge
from ticket_priority.db import after_commit
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.models.versions import LARGE_COLUMNS
from ticket_priority.predictions import audit, outbox
from ticket_priority.predictions.workers import notify_workers
from ticket_priority.priorities import Priority

_MOST_RETRIED: Final = 5000
_VERSIONS: Final = "_ticket_priority_versions"


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that cannot be added, edited or deleted here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TicketRowAdmin(ReadOnlyAdmin):
    """Rows about tickets, with links to them."""

    list_select_related: ClassVar[Any] = ("content_type",)
    search_fields: ClassVar[Any] = ("object_id",)
    search_help_text = _("The ticket's primary key")
    show_full_result_count = False

    class Media:
        css = {"all": ["ticket_priority/badge.css", "ticket_priority/admin.css"]}

    @admin.display(description=_("ticket"), ordering="object_id")
    def ticket(self, row: Prediction | Override) -> SafeString | str:
        model = ContentType.objects.get_for_id(row.content_type_id).model_class()
        if model is None:
            return row.object_id
        options = model._meta
        text = f"{capfirst(options.verbose_name)} {row.object_id}"
        try:
            page = reverse(
                f"admin:{options.app_label}_{options.model_name}_change",
                args=(quote(row.object_id),),
                current_app=self.admin_site.name,
            )
        except NoReverseMatch:
            return text
        return format_html('<a href="{}">{}</a>', page, text)


class VersionFilter(admin.RelatedFieldListFilter):
    """By model version, whose names are read once a page, and not its figures."""

    def field_choices(self, field: Any, request: Any, model_admin: Any) -> Any:
        if not hasattr(request, _VERSIONS):
            names = ModelVersion.objects.values_list("pk", "name")
            setattr(request, _VERSIONS, list(names))
        return getattr(request, _VERSIONS)


@admin.register(Prediction)
class PredictionAdmin(TicketRowAdmin):
    """List predictions, and try failed ones again."""

    list_display = (
        "created_at",
        "ticket",
        "says",
        "sure",
        "state",
        "reason",
        "model_version",
        "mode",
        "latency",
    )
    list_filter = (
        "state",
        "reason",
        "priority",
        "mode",
        ("model_version", VersionFilter),
    )
    list_select_related = ("content_type", "model_version")
    actions = ("retry_failed",)
    fields = (
        "ticket",
        "says",
        "sure",
        "probabilities",
        "state",
        "reason",
        "mode",
        "model_version",
        "latency",
        "value_before",
        "attempts",
        "text_hash",
        "created_at",
        "decided_at",
    )

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Prediction]:
        large = (f"model_version__{name}" for name in LARGE_COLUMNS)
        return audit.shown(super().get_queryset(request)).defer(*large)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ticket_priority.change_prediction")

    @admin.display(description=_("says"), ordering="priority")
    def says(self, prediction: Prediction) -> SafeString | None:
        return None if prediction.priority is None else priority_badge(prediction.priority)

    @admin.display(description=_("confidence"), ordering="confidence")
    def sure(self, prediction: Prediction) -> str:
        return percent(prediction.confidence)

    @admin.display(description=_("probabilities"))
    def probabilities(self, prediction: Prediction) -> str:
        known = prediction.probabilities
        shares = [(priority.label, known[priority.slug]) for priority in reversed(Priority)]
        return ", ".join(f"{label} {share:.1%}" for label, share in shares if share is not None)

    @admin.display(description=_("latency"), ordering="latency_ms")
    def latency(self, prediction: Prediction) -> str | None:
        return None if prediction.latency_ms is None else f"{prediction.latency_ms:.0f} ms"

    @admin.action(description=_("Try the failed ones again"), permissions=["retry"])
    def retry_failed(self, request: HttpRequest, predictions: models.QuerySet[Prediction]) -> None:
        using = router.db_for_write(Prediction)
        failed = predictions.filter(state=Prediction.State.FAILED).order_by("pk")
        keys = list(failed.values_list("pk", flat=True)[:_MOST_RETRIED])
        chosen = Prediction.objects.using(using).filter(pk__in=keys)
        again, left = outbox.retry(chosen)
        if again:
            after_commit(notify_workers, using=using)
            text = ngettext(
                "%(number)d prediction is pending again.",
                "%(number)d predictions are pending again.",
                again,
            )
            self.message_user(request, text % {"number": again}, messages.SUCCESS)
        if left:
            text = ngettext(
                "%(number)d failed prediction was left: its ticket has a priority or a newer "
                "prediction. Classify it from the ticket list.",
                "%(number)d failed predictions were left: their tickets have a priority or a newer "
                "prediction. Classify them from the ticket list.",
                left,
            )
            self.message_user(request, text % {"number": left}, messages.WARNING)
        if not again and not left:
            self.message_user(request, _("None of these has failed."), messages.WARNING)


@admin.register(Override)
class OverrideAdmin(TicketRowAdmin):
    """List the decisions of people."""

    list_display = ("created_at", "ticket", "before", "after", "user", "reason", "via")
    list_filter = (
        "to_priority",
        "from_priority",
        "via",
        ("user", admin.RelatedOnlyFieldListFilter),
    )
    list_select_related = ("content_type", "user")
    search_fields = ("object_id", "reason")
    search_help_text = _("The ticket's primary key, or words of the reason")
    fields = ("ticket", "before", "after", "user", "reason", "via", "prediction", "created_at")

    @admin.display(description=_("from"), ordering="from_priority")
    def before(self, override: Override) -> SafeString:
        return priority_badge(override.from_priority)

    @admin.display(description=_("to"), ordering="to_priority")
    def after(self, override: Override) -> SafeString:
        return priority_badge(override.to_priority)
