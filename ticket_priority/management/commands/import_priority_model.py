from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from ticket_priority.conf import ACTIVATE_CHOICES
from ticket_priority.management.base import SourceCommand
from ticket_priority.sources.registry import find_sources
from ticket_priority.training.artifact_import import import_model


class Command(SourceCommand):
    """Register a model that was trained on another machine."""

    stopped = "Stopped. The active model is as it was."
    help = (
        "Verify the artifact that `python -m ticket_priority.ml fit` wrote, publish and register "
        "it, and activate it when it is at least as good as the active one on the labelled "
        "tickets here."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, help="the artifact's folder")
        parser.add_argument("--activate", choices=ACTIVATE_CHOICES, default="if-better")
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        outcome = import_model(
            options["directory"],
            sources=find_sources(options["source"]),
            activate=options["activate"],
            using=options["database"],
            progress=self.say,
        )
        self.report(outcome.as_dict(), outcome.lines())
