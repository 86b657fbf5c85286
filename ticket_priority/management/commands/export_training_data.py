"""Write the labelled tickets to a file, to train on another machine."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.ml.data.jsonl import check_writable, write_splits
from ticket_priority.ml.evaluation import report as training_report
from ticket_priority.ml.types import silent
from ticket_priority.sources.registry import find_sources
from ticket_priority.training import dataset as datasets


class Command(BaseCommand):
    help = (
        "Write the tickets whose priority people set to a JSON Lines file, with their provenance, "
        "group and split. It holds the tickets' texts, so only you may read it. Train on it with "
        "`python -m ticket_priority.ml fit FILE --out DIR`."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="the JSON Lines file to write")
        parser.add_argument("--source", action="append", help="app_label.Model; default: all")
        parser.add_argument(
            "--database", choices=tuple(connections), help="database alias of the tickets"
        )
        parser.add_argument("--force", action="store_true", help="replace the file if it exists")
        parser.add_argument("--json", action="store_true", help="print a summary as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        speaks = options["verbosity"] >= 1 and not options["json"]
        say = self.stdout.write if speaks else silent
        try:
            check_writable(path, force=options["force"])
            sources = find_sources(options["source"] or ())
            dataset = datasets.collect(sources, using=options["database"], progress=say)
            if not len(dataset):
                raise CommandError("There is no ticket whose priority a person set.")
            summary = dataset.summary()
            for line in training_report.data_lines(summary):
                say(line)
            splits = {
                "train": dataset.train,
                "validation": dataset.validation,
                "test": dataset.test,
            }
            write_splits(path, splits, datasets.split_of(summary) or "", force=options["force"])
        except TicketPriorityError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. No file was written.", returncode=130) from None
        say(f"Written to {path}")
        if options["json"]:
            self.stdout.write(json.dumps({"file": str(path), **summary}, indent=2))
