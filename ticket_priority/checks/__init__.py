"""System checks, by what they look at: the settings, the ticket sources, the deployment."""

from __future__ import annotations

from django.core.checks import Tags, register


def register_checks() -> None:
    """Register every system check of this app; called once, when the apps are ready."""
    from ticket_priority.checks import deployment, settings, sources

    for check in (
        settings.check_settings,
        settings.check_serving,
        settings.check_queue,
        settings.check_sqlite,
        sources.check_sources,
        deployment.check_chosen_queue,
        deployment.check_served_folders,
        deployment.check_metrics,
        deployment.check_transactions,
    ):
        register(check, "ticket_priority")
    register(settings.check_certificates, "ticket_priority", Tags.database)
    register(sources.check_host_rows, "ticket_priority", Tags.database)
    register(deployment.check_deployed_queue, "ticket_priority", deploy=True)
    register(deployment.check_writable_folders, "ticket_priority", deploy=True)
