"""Say how the shadow does beside the version that serves."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ticket_priority.models import ModelVersion
from ticket_priority.predictions import shadow
from ticket_priority.reports import shadow as shadow_report


class Command(BaseCommand):
    help = (
        "Compare what the shadow said with what the active version said of the same tickets, and "
        "both with the priorities that people set. Nothing is written."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help="a version that is or was the shadow")
        parser.add_argument("--against", metavar="NAME", help="default: the active version")
        parser.add_argument("--json", action="store_true", help="print as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        version = _named(options["name"]) if options["name"] else ModelVersion.objects.shadow()
        if version is None:
            raise CommandError(
                "No version is the shadow: name one that was, or begin with "
                "manage.py activate_priority_model NAME --shadow"
            )
        if version.shadow_since is None:
            raise CommandError(f"{version.name} was never the shadow.")
        given = options["against"]
        served_by = _named(given) if given else shadow.rival_of(version)
        if served_by is None:
            raise CommandError(f"No other version was ever active to compare {version.name} with.")
        figures = shadow_report.report(version, served_by)
        if options["json"]:
            self.stdout.write(json.dumps(figures, indent=2))
            return
        for line in shadow_report.lines(figures):
            self.stdout.write(line)


def _named(name: str) -> ModelVersion:
    version = ModelVersion.objects.filter(name=name).first()
    if version is None:
        raise CommandError(f"There is no model version {name!r}.")
    return version
