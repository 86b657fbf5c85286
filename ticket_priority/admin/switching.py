from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.urls import URLPattern, path, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from ticket_priority.admin.records import ReadOnlyAdmin
from ticket_priority.models import SwitchChange
from ticket_priority.predictions import kill_switch
from ticket_priority.predictions.workers import wake_workers


@admin.register(SwitchChange)
class SwitchChangeAdmin(ReadOnlyAdmin):
    """Switch classification on or off, and list who did so and when."""

    list_display = ("created_at", "turned", "reason", "user")
    list_select_related = ("user",)
    list_display_links = None
    change_list_template = "admin/ticket_priority/switchchange/change_list.html"

    def has_switch_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ticket_priority.add_switchchange")

    @admin.display(description=_("switched"), ordering="is_on")
    def turned(self, change: SwitchChange) -> str:
        return str(change)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        state = kill_switch.read()
        context = {
            "title": capfirst(self.opts.verbose_name),
            "is_on": state.on,
            "is_enabled": state.enabled,
            "may_switch": self.has_switch_permission(request),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    def get_urls(self) -> list[URLPattern]:
        turn = path(
            "turn/",
            self.admin_site.admin_view(self.turn_view),
            name="ticket_priority_switchchange_turn",
        )
        return [turn, *super().get_urls()]

    def turn_view(self, request: HttpRequest) -> HttpResponse:
        """Switch off or on, and go back to the list."""
        if not self.has_switch_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        on = request.POST.get("turn") == "on"
        reason = request.POST.get("reason", "").strip()[:500]
        if kill_switch.turn(on=on, user=request.user, reason=reason):
            self._tell(request, on=on)
        page = reverse(
            "admin:ticket_priority_switchchange_changelist", current_app=self.admin_site.name
        )
        return HttpResponseRedirect(page)

    def _tell(self, request: HttpRequest, *, on: bool) -> None:
        if not on:
            text = _("Classification is off, in every process.")
        elif wake_workers():
            text = _("Classification is on. What waits is being classified.")
        else:
            text = _(
                "Classification is on. What waits is classified by manage.py classify_tickets."
            )
        self.message_user(request, text, messages.SUCCESS)
