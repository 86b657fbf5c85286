"""Register a model that was trained on another machine."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from ticket_priority.conf import ACTIVATE_CHOICES
from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.ml.types import silent
from ticket_priority.sources.registry import find_sources
from ticket_priority.training.artifact_import import import_model


class Command(BaseCommand):
    help = (
        "Verify the artifact that `python -m ticket_priority.ml fit` wrote, publish and register "
        "it, and activate it when it is at least as good as the active one on the labelled "
        "tickets here."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, help="the artifact's folder")
        parser.add_argument("--source", action="append", help="app_label.Model; default: all")
        parser.add_argument(
            "--database", choices=tuple(connections), help="database alias of the tickets"
        )
        parser.add_argument("--activate", choices=ACTIVATE_CHOICES, default="if-better")
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        speaks = options["verbosity"] >= 1 and not options["json"]
        say = self.stdout.write if speaks else silent
        try:
            outcome = import_model(
                options["directory"],
                sources=find_sources(options["source"] or ()),
                activate=options["activate"],
                using=options["database"],
                progress=say,
            )
        except TicketPriorityError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. The active model is as it was.", returncode=130) from None
        if options["json"]:
            self.stdout.write(json.dumps(outcome.as_dict(), indent=2))
        for line in outcome.lines():
            say(line)
