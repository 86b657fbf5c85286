"""Mount with `path("metrics/", include("ticket_priority.prometheus.urls"))`."""

from __future__ import annotations

from django.urls import path

from ticket_priority.prometheus import views

app_name = "ticket_priority_prometheus"

urlpatterns = [path("", views.metrics, name="metrics")]
