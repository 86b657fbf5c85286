"""An admin site with every foreign host, and the API."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import models
from django.urls import include, path

from helpdesk.urls import pages
from tests.foreign.table import ODDITIES
from ticket_priority.admin import OverrideAdminMixin

site = admin.AdminSite(name="admin")


class HostAdmin(OverrideAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    low_confidence = 0.99


def has_admin(model: type[models.Model]) -> bool:
    """The admin takes no model with a composite key."""
    return not isinstance(model._meta.pk, models.CompositePrimaryKey)


site.register({oddity.model for oddity in ODDITIES if has_admin(oddity.model)}, HostAdmin)

urlpatterns: list[Any] = [
    path("", include((pages, "helpdesk"))),
    path("admin/", site.urls),
    path("api/", include("ticket_priority.api.urls")),
]
