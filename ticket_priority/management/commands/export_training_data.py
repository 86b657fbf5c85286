from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from ticket_priority.management.base import SourceCommand
from ticket_priority.ml.data.jsonl import check_writable, write_splits
from ticket_priority.ml.evaluation.report import data_lines
from ticket_priority.sources.registry import find_sources
from ticket_priority.training.dataset import collect, split_of


class Command(SourceCommand):
    """Write the labelled tickets to a file, to train on another machine."""

    stopped = "Stopped. No file was written."
    help = (
        "Write the tickets whose priority people set to a JSON Lines file, with their provenance, "
        "group and split. It holds the tickets' texts, so only you may read it. Train on it with "
        "`python -m ticket_priority.ml fit FILE --out DIR`."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="the JSON Lines file to write")
        parser.add_argument("--force", action="store_true", help="replace the file if it exists")
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        path: Path = options["file"]
        check_writable(path, force=options["force"])
        sources = find_sources(options["source"])
        dataset = collect(sources, using=options["database"], progress=self.say)
        if not len(dataset):
            raise CommandError("There is no ticket whose priority a person set.")
        summary = dataset.summary()
        for line in data_lines(summary):
            self.say(line)
        splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        write_splits(path, splits, split_of(summary) or "", force=options["force"])
        self.report({"file": str(path), **summary}, [f"Written to {path}"])
