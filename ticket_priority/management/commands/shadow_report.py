from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from ticket_priority.classifiers import find_version
from ticket_priority.management.base import PluginCommand
from ticket_priority.models import ModelVersion
from ticket_priority.predictions.shadow import rival_of
from ticket_priority.reports.shadow import lines, report


class Command(PluginCommand):
    """Compare the shadow with the version that serves."""

    help = (
        "Compare what the shadow said with what the active version said of the same tickets, and "
        "both with the priorities that people set. Writes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help="a version that is or was the shadow")
        parser.add_argument("--against", metavar="NAME", help="default: the active version")
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        name, against = options["name"], options["against"]
        version = find_version(name) if name else ModelVersion.objects.shadow()
        if version is None:
            raise CommandError(
                "No version is the shadow: name one that was, or start one with "
                "manage.py activate_priority_model NAME --shadow"
            )
        if version.shadow_since is None:
            raise CommandError(f"{version.name} was never the shadow.")
        served_by = find_version(against) if against else rival_of(version)
        if served_by is None:
            raise CommandError(f"No other version was ever active to compare {version.name} with.")
        figures = report(version, served_by)
        self.report(figures, lines(figures))
