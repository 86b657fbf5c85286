from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import URLPattern, URLResolver, include, path

from helpdesk import views

pages: list[URLPattern | URLResolver] = [
    path("", views.OpenTicketView.as_view(), name="open-ticket"),
    path("thanks/", views.ThanksView.as_view(), name="thanks"),
    path(
        "login/",
        LoginView.as_view(template_name="helpdesk/login.html", redirect_authenticated_user=True),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("tickets/", views.QueueView.as_view(), name="queue"),
    path("tickets/<int:pk>/", views.TicketView.as_view(), name="ticket"),
    path("tickets/<int:pk>/properties/", views.PropertiesView.as_view(), name="properties"),
    path("tickets/<int:pk>/comments/", views.CommentView.as_view(), name="comment"),
    path("tickets/<int:pk>/priority/", views.PriorityView.as_view(), name="priority"),
    path("tickets/<int:pk>/accept/", views.AcceptSuggestionView.as_view(), name="accept"),
]

urlpatterns = [
    path("", include((pages, "helpdesk"))),
    path("admin/", admin.site.urls),
    path("api/", include("ticket_priority.api.urls")),
]
