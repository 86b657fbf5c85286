"""`OverrideAdminMixin`, for the admin of a host's tickets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Final

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, router, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import select_template
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _

from ticket_priority.admin import bulk, listing
from ticket_priority.admin.panel import TicketPanel
from ticket_priority.admin.records import page_of
from ticket_priority.exceptions import (
    ModelUnavailableError,
    OverrideRateError,
    PriorityRefusedError,
)
from ticket_priority.models import plugin_database
from ticket_priority.predictions import overrides
from ticket_priority.predictions.copies import copied_from
from ticket_priority.predictions.standings import open_suggestions, priorities_of
from ticket_priority.priorities import Priority
from ticket_priority.sources import PriorityChange, TicketSource
from ticket_priority.sources.keys import ticket_key
from ticket_priority.sources.registry import get_source

REASON_FIELD: Final = "ticket_priority_reason"
_UNKNOWN: Final = object()
_REFUSAL: Final = "_ticket_priority_refusal"


class RemembersPriority(forms.BaseModelForm):  # type: ignore[type-arg]
    """Remembers the host value that its ticket was read with; a `refusal` makes it invalid."""

    value_read: Any = _UNKNOWN
    refusal: str = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        ticket = kwargs.get("instance")
        if ticket is not None:
            self.value_read = get_source(type(ticket)).value_of(ticket)
        super().__init__(*args, **kwargs)

    def clean(self) -> Any:
        cleaned = super().clean()
        if self.refusal:
            raise ValidationError(self.refusal, code="override_rate")
        return cleaned


class OverrideAdminMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Show priorities and predictions, and record what people decide about them.

    Put it before ModelAdmin: `class TicketAdmin(OverrideAdminMixin, admin.ModelAdmin)`. The model
    must be a ticket source. The badge replaces the priority in `list_display`, or else is added
    after the first column. Predictions under `low_confidence` (0 to 1) can be filtered.
    """

    low_confidence: ClassVar[float] = 0.6

    class Media:
        css = {"all": ["ticket_priority/badge.css", "ticket_priority/admin.css"]}

    @property
    def source(self) -> TicketSource:
        # Looked up each time: a source may be registered, or replaced, after this admin.
        return get_source(self.model)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        name = self.source.priority_field
        columns = list(super().get_list_display(request))
        if name not in columns:
            columns.insert(1, name)
        position = columns.index(name)
        if name not in self.list_editable:
            columns[position] = listing.PriorityColumn(name)
        columns.insert(position + 1, listing.PredictionColumn())
        return columns

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        name = self.source.priority_field
        others = [item for item in super().get_list_filter(request) if item != name]
        own = [listing.PriorityFilter, listing.PredictionStateFilter, listing.ConfidenceFilter]
        return [*own, *others]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        hosts = super().get_changelist(request, **kwargs)
        return type("TicketChangeList", (listing.PredictionsOnPage, hosts), {})

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> Any:
        formset: Any = super().get_changelist_formset(request, **kwargs)
        formset.form = type(formset.form.__name__, (RemembersPriority, formset.form), {})
        self._remember_shown_value(formset.form)
        return formset

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # The list is saved as a whole or not at all, and the decisions with it.
        whole = transaction.atomic(using=plugin_database())
        try:
            with whole if "_save" in request.POST else nullcontext():
                return super().changelist_view(request, *args, **kwargs)
        except OverrideRateError as error:
            self.message_user(request, f"{error} {_('Nothing was changed.')}", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except OverrideRateError as error:
            # Nothing is saved. The form is shown again with its input and the reason.
            setattr(request, _REFUSAL, str(error))
            return super().changeform_view(request, *args, **kwargs)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = kwargs.get("form", self.form)
        attributes: dict[str, Any] = {"refusal": getattr(request, _REFUSAL, "")}
        if self._decides(request, obj):
            readonly = self.get_readonly_fields(request, obj)
            attributes |= dict.fromkeys(name for name in readonly if name in form.declared_fields)
            attributes[REASON_FIELD] = _reason_field()
        kwargs["form"] = type(form.__name__, (RemembersPriority, form), attributes)
        built = super().get_form(request, obj, change=change, **kwargs)
        self._remember_shown_value(built)
        return built

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        after = self.source.priority_field if self._decides(request, obj) else None
        return [
            (name, {**options, "fields": _place_reason(options["fields"], after)})
            for name, options in super().get_fieldsets(request, obj)
        ]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save, and record an override where the user chose the priority, or confirmed it.

        A priority that the user did not touch is not written: it may have been predicted since
        the form was rendered, or since the ticket was read. Raises OverrideRateError before it
        saves.
        """
        source, using = self.source, router.db_for_write(type(obj), instance=obj)
        value = source.value_of(obj)
        posted = self._is_posted(form, value)
        if not change or not (posted or self._is_untouched(form, value)):
            with copied_from(self._origin_of(request, form, value)):
                super().save_model(request, obj, form, change)
            return
        with transaction.atomic(using=using):
            stored = source.lock(obj.pk, using=using)
            chosen = posted and self._is_chosen(form, value, source.value_of(stored))
            if not chosen:
                setattr(obj, source.host_field.attname, source.value_of(stored))
            reason = form.cleaned_data.get(REASON_FIELD) or ""
            confirmed = bool(reason) and posted and value == source.value_of(stored)
            after = source.meaning_of(value) if chosen or confirmed else None
            decision = PriorityChange(
                source.value_of(stored), value, request.user, reason=reason, via=bulk.VIA
            )
            if after is not None:
                overrides.check_override_rate(request.user)
            with overrides.recorded_elsewhere():
                super().save_model(request, obj, form, change)
            if after is not None:
                before = priorities_of([stored])[ticket_key(obj)]
                overrides.record_override(
                    obj, before=before, after=after, user=request.user, reason=reason, via=bulk.VIA
                )
                overrides.tell_host(obj, decision)
            elif posted and reason:
                text = _("The reason was not kept, since you did not decide on a priority.")
                self.message_user(request, text, messages.WARNING)

    def _decides(self, request: HttpRequest, obj: Any) -> bool:
        """Whether this is the form of a saved ticket whose priority the user may change."""
        return (
            obj is not None
            and self.has_change_permission(request, obj)
            and self.source.priority_field not in self.get_readonly_fields(request, obj)
        )

    def _remember_shown_value(self, form: Any) -> None:
        field = form.base_fields.get(self.source.priority_field)
        if field is not None:
            field.show_hidden_initial = True

    def _origin_of(self, request: HttpRequest, form: Any, value: Any) -> Any:
        """Return the key of the ticket that "Save as new" copies with its priority, or None."""
        match = request.resolver_match
        key = match.kwargs.get("object_id") if match and "_saveasnew" in request.POST else None
        origin = self.get_object(request, unquote(key)) if key else None
        if origin is None or self._is_chosen(form, value, self.source.value_of(origin)):
            return None
        return origin.pk

    def _is_posted(self, form: Any, value: Any) -> bool:
        """Whether the form holds the priority, and the host's own code has not replaced it."""
        name = self.source.priority_field
        if name not in form.fields:
            return False
        posted = form.cleaned_data.get(name)
        posted = posted.pk if isinstance(posted, models.Model) else posted
        return bool(value == self.source.clean(posted))

    def _is_untouched(self, form: Any, value: Any) -> bool:
        """Whether the form leaves the priority out, and the host's own code does so too."""
        if self.source.priority_field in form.fields:
            return False
        return bool(value == getattr(form, "value_read", _UNKNOWN))

    def _is_chosen(self, form: Any, value: Any, stored: Any) -> bool:
        name = self.source.priority_field
        if form.add_initial_prefix(name) in form.data:
            return name in form.changed_data
        # Without the hidden initial value, a value that differs from the stored one is a choice.
        return bool(value != stored)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        response = super().render_change_form(request, context, *args, **kwargs)
        ticket = context.get("original")
        if ticket is None or context.get("is_popup") or not isinstance(response, TemplateResponse):
            return response
        names: Any = response.template_name
        parent = select_template([names] if isinstance(names, str) else names)
        response.context_data = {
            **(response.context_data or {}),
            "ticket_priority_parent": parent,
            "ticket_priority": TicketPanel.of(ticket),
            "ticket_priority_may_change": self.has_change_permission(request, ticket),
        }
        response.template_name = "admin/ticket_priority/ticket_change_form.html"
        return response

    def get_urls(self) -> list[URLPattern]:
        prefix = f"{self.opts.app_label}_{self.opts.model_name}_priority"
        own = [
            path(
                f"<path:object_id>/priority/{word}/",
                self.admin_site.admin_view(view),
                name=f"{prefix}_{word}",
            )
            for word, view in (("classify", self.classify_view), ("accept", self.accept_view))
        ]
        return [*own, *super().get_urls()]

    def classify_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Classify one ticket again."""
        return self._act(request, object_id, self._classify)

    def accept_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Accept the suggestion that the page showed, unless another has replaced it since."""
        return self._act(request, object_id, self._accept)

    def _act(
        self,
        request: HttpRequest,
        object_id: str,
        act: Callable[[HttpRequest, Any], tuple[int, Any]],
    ) -> HttpResponse:
        ticket = self.get_object(request, unquote(object_id))
        if ticket is None:
            raise Http404
        if not self.has_change_permission(request, ticket):
            raise PermissionDenied
        # After a session has expired, the login page redirects here with GET.
        if request.method == "POST":
            try:
                level, text = act(request, ticket)
            except (ModelUnavailableError, OverrideRateError, PriorityRefusedError) as error:
                level, text = messages.ERROR, str(error)
            self.message_user(request, text, level)
        page = page_of(self.admin_site, self.model, ticket.pk)
        query = request.GET.urlencode()
        return HttpResponseRedirect(f"{page}?{query}" if query else page)

    def _classify(self, request: HttpRequest, ticket: Any) -> tuple[int, Any]:
        (prediction,) = bulk.TicketActions(self, request).classify([ticket])
        return bulk.outcome_of(prediction)

    def _accept(self, request: HttpRequest, ticket: Any) -> tuple[int, Any]:
        suggestion = open_suggestions([ticket]).get(ticket_key(ticket))
        if suggestion is None or str(suggestion.pk) != request.POST.get("prediction"):
            text = _("The suggestion has changed in the meantime. Please look again.")
            return messages.WARNING, text
        bulk.TicketActions(self, request).accept(ticket, suggestion)
        label = Priority(suggestion.priority or 0).label
        return messages.SUCCESS, _("The priority is now %(label)s.") % {"label": label}

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        if self.actions is None or IS_POPUP_VAR in request.GET:
            return actions
        if self.has_change_permission(request):
            for found in filter(None, map(self.get_action, bulk.ACTIONS)):
                actions[found[1]] = found
        return actions


def _reason_field() -> forms.CharField:
    return forms.CharField(
        label=_("Reason for the priority"),
        help_text=_("Optional; kept with your decision. On its own it confirms the priority."),
        required=False,
        max_length=1000,
        widget=AdminTextInputWidget,
    )


def _place_reason(fields: Sequence[Any], after: str | None) -> list[Any]:
    """Put the reason on the line of the field `after`; None: nowhere."""
    placed: list[Any] = []
    for line in fields:
        names = [line] if isinstance(line, str) else line
        names = [name for name in names if name != REASON_FIELD]
        if after in names:
            names.insert(names.index(after) + 1, REASON_FIELD)
        if names:
            placed.append(names[0] if len(names) == 1 else tuple(names))
    return placed
