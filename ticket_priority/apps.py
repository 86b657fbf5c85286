"""The app's configuration: connects signals and checks; runs no query and loads no model."""

from __future__ import annotations

from importlib.util import find_spec

from django.apps import AppConfig
from django.core.signals import request_finished
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class TicketPriorityConfig(AppConfig):
    """The app `ticket_priority`."""

    name = "ticket_priority"
    verbose_name = _("Ticket priority")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register checks and sources, and connect signals."""
        from ticket_priority.checks import register_checks
        from ticket_priority.checks.sources import register_configured_sources
        from ticket_priority.conf import user_group
        from ticket_priority.predictions import receivers
        from ticket_priority.signals import model_version_activated
        from ticket_priority.sources import subscribe

        register_checks()
        register_configured_sources()
        subscribe(receivers.connect)
        request_finished.connect(receivers.after_request, dispatch_uid="ticket_priority.request")
        post_migrate.connect(receivers.create_schedules, dispatch_uid="ticket_priority.schedules")
        model_version_activated.connect(
            receivers.wake_pending, dispatch_uid="ticket_priority.wake_pending"
        )
        if user_group("METRICS").get("ENABLED") and find_spec("prometheus_client") is not None:
            from ticket_priority import prometheus

            prometheus.connect()
