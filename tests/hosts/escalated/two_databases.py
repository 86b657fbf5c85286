"""The journeys with tickets in one database and the plugin's rows in another.

A process of its own, which `test_setup.py` starts: the host reads its database at the start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
os.environ["DJANGO_SETTINGS_MODULE"] = "project.two_databases"


def main() -> None:
    import django

    django.setup()
    migrate()
    tell_the_journeys()


def migrate() -> None:
    from django.core.management import call_command
    from django.db import connections

    for alias in ("default", "support"):
        call_command("migrate", database=alias, verbosity=0)
    # Migrating switches the checks of foreign keys on.
    connections.close_all()


def tell_the_journeys() -> None:
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import override_settings
    from escalated.models import Department, SlaPolicy, Ticket
    from escalated.services.ticket_service import TicketService
    from routes import OUTAGE, by_service, deadlines, log
    from toy_model import activate_toy

    from ticket_priority.models import Override, Prediction
    from ticket_priority.predictions import outbox
    from ticket_priority.sources.registry import get_source
    from ticket_priority.training.labels import labelled_texts

    assert (Ticket.unrestricted.db, Prediction.objects.db) == ("support", "default")
    SlaPolicy.objects.create(
        name="Standard",
        is_default=True,
        first_response_hours={"medium": 8, "high": 4},
        resolution_hours={"medium": 24, "high": 10},
    )
    agent = User.objects.create_user("agent")
    Department.objects.create(name="Support", slug="support").agents.add(agent.pk)
    activate_toy()

    ticket = by_service(OUTAGE)
    assert (ticket.priority, deadlines(ticket)) == ("high", (4, 10))
    assert Prediction.objects.for_instance(ticket).get().state == "applied"

    with override_settings(TICKET_PRIORITY={**settings.TICKET_PRIORITY, "MODE": "async"}):
        late = by_service(OUTAGE)
        outbox.drain()
    late.refresh_from_db()
    assert (late.priority, deadlines(late)) == ("high", (4, 10))
    assert [entry["predicted"] for entry in log(late, "priority_changed")] == [True]

    source = get_source(Ticket)
    assert list(labelled_texts(source)) == []
    TicketService().change_priority(ticket, agent, "low")
    assert Override.objects.get().user == agent
    assert [(row.pk, row.label) for row in labelled_texts(source)] == [(str(ticket.pk), 0)]
    assert source.visible_rows(agent).count() == 2
    assert list(source.unset_rows()) == []


if __name__ == "__main__":
    main()
