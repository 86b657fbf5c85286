from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from escalated.models import Ticket

from ticket_priority.admin import OverrideAdminMixin


@admin.register(Ticket)
class TicketAdmin(OverrideAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """The host brings no admin of its own; a project may."""

    list_display = ("reference", "subject", "priority")
    fields = ("subject", "priority")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("support/", include("escalated.urls")),
    path("priority/", include("ticket_priority.api.urls")),
]
