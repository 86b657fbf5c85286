"""What the commands share: their options, how they print, and how an error ends them."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.ml.types import ProgressCallback, silent


class PluginCommand(BaseCommand):
    """Print lines, one JSON document with `--json`, or nothing with `--verbosity=0`.

    A subclass defines `run`. A TicketPriorityError becomes a CommandError; Ctrl-C ends the command
    with the message `stopped` and exit status 130.
    """

    stopped: ClassVar[str] = "Stopped."
    as_json: bool
    speaks: bool
    say: ProgressCallback

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        self.as_json = options["json"]
        self.speaks = options["verbosity"] >= 1 and not self.as_json
        self.say = self.stdout.write if self.speaks else silent
        try:
            self.run(options)
        except TicketPriorityError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError(self.stopped, returncode=130) from None

    def run(self, options: dict[str, Any]) -> None:
        raise NotImplementedError

    def report(self, document: Any, lines: Iterable[str] = ()) -> None:
        """Print the document with `--json`, else the lines."""
        if self.as_json:
            self.stdout.write(json.dumps(document, indent=2, ensure_ascii=False))
        elif self.speaks:
            for line in lines:
                self.stdout.write(line)


class SourceCommand(PluginCommand):
    """Also choose the ticket sources, and the database that their tickets are in."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--source", action="append", default=[], help="app_label.Model; default: all"
        )
        parser.add_argument(
            "--database", choices=tuple(connections), help="database alias of the tickets"
        )
        super().add_arguments(parser)
