from __future__ import annotations

from django.urls import include, path

from helpdesk.urls import urlpatterns as pages

urlpatterns = [*pages, path("metrics/", include("ticket_priority.prometheus.urls"))]
