"""Mount with `path("api/", include("ticket_priority.api.urls"))`."""

from __future__ import annotations

from django.urls import path

from ticket_priority.api import views

app_name = "ticket_priority_api"

_TICKET = "tickets/<str:source>/<path:object_id>/"

urlpatterns = [
    path("predict/", views.PredictView.as_view(), name="predict"),
    path("predictions/", views.PredictionListView.as_view(), name="predictions"),
    path("predictions/<int:pk>/", views.PredictionView.as_view(), name="prediction"),
    path("overrides/", views.OverrideListView.as_view(), name="overrides"),
    path(f"{_TICKET}override/", views.TicketOverrideView.as_view(), name="ticket-override"),
    path(f"{_TICKET}classify/", views.TicketClassifyView.as_view(), name="ticket-classify"),
    # After the two above, as a key may hold slashes.
    path(_TICKET, views.TicketView.as_view(), name="ticket"),
    path("info/", views.InfoView.as_view(), name="info"),
    path("health/", views.HealthView.as_view(), name="health"),
    path("schema/", views.SchemaView.as_view(), name="schema"),
]
