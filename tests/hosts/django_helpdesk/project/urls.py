from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("priority/", include("ticket_priority.api.urls")),
    path("", include("helpdesk.urls")),
]
