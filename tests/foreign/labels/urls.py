from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from tests.foreign.labels.models import Ticket
from ticket_priority.admin import OverrideAdminMixin

site = admin.AdminSite(name="admin")


@admin.register(Ticket, site=site)
class TicketAdmin(OverrideAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    save_as = True


urlpatterns = [path("admin/", site.urls), path("api/", include("ticket_priority.api.urls"))]
