"""A second admin site, with the ticket admins that hosts other than the demo may have."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.urls import path

from helpdesk.models import Ticket
from tests.uuid_host.models import Case
from ticket_priority.admin import OverrideAdminMixin

site = admin.AdminSite(name="admin")
site.register(get_user_model(), UserAdmin)


class TicketForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Ticket
        fields = ("subject", "priority", "description")


@admin.register(Ticket, site=site)
class EditableListAdmin(OverrideAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Edits priorities in the list; has fieldsets, a form and a template of its own."""

    form = TicketForm
    list_display = ("id", "subject", "priority")
    list_editable = ("subject", "priority")
    list_filter = ("priority", "status")
    list_per_page = 50
    fieldsets = ((None, {"fields": ("subject", ("priority", "description"))}),)
    change_form_template = "own_change_form.html"


@admin.register(Case, site=site)
class CaseAdmin(OverrideAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Keys are UUIDs, and priorities the host's own numbers."""

    fields = ("body", "urgency")

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        may = super().has_change_permission(request, obj)
        return may and (obj is None or obj.body != "locked")


urlpatterns = [path("admin/", site.urls)]
