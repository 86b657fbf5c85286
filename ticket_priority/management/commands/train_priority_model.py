"""Train on the tickets whose priority people set."""

from __future__ import annotations

import json
import math
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from ticket_priority.conf import ACTIVATE_CHOICES
from ticket_priority.exceptions import DatasetError, TicketPriorityError
from ticket_priority.ml.hyperparameters import arguments as training_arguments
from ticket_priority.ml.types import TrainingConfig, silent
from ticket_priority.models import ModelVersion
from ticket_priority.sources.registry import find_sources
from ticket_priority.training.history import recorded
from ticket_priority.training.registration import TrainingOutcome
from ticket_priority.training.run import configure, train_model
from ticket_priority.training.time_limit import deadline, interruptible

_STARTER_HINT = " Until then, `manage.py activate_priority_model --starter` gives a first guess."


class Command(BaseCommand):
    help = (
        "Train a priority model on the tickets whose priority people set, publish it, and "
        "activate it when it is at least as good as the active one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--source", action="append", help="app_label.Model; default: all")
        parser.add_argument(
            "--database", choices=tuple(connections), help="database alias of the tickets"
        )
        parser.add_argument("--activate", choices=ACTIVATE_CHOICES, default="if-better")
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
        parser.add_argument(
            "--timeout-minutes",
            type=_minutes,
            help="end the run, and what it has started, after so many minutes",
        )
        # The row that the schedule wrote for this run.
        parser.add_argument("--run", type=int, help=SUPPRESS)
        run = parser.add_argument_group("training (defaults from TICKET_PRIORITY)")
        training_arguments.add_to(run)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with recorded(options["run"]) as succeed:
                outcome = self._train(options)
                what = "activated" if outcome.activated else "not activated"
                succeed(
                    outcome.version, f"{outcome.version.name} was {what}: {outcome.verdict.reason}"
                )
        except DatasetError as error:
            hint = "" if ModelVersion.objects.active() else _STARTER_HINT
            raise CommandError(f"{error}{hint}") from error
        except TicketPriorityError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. The active model is as it was.", returncode=130) from None
        if options["json"]:
            self.stdout.write(json.dumps(outcome.as_dict(), indent=2))
        elif options["verbosity"] >= 1:
            for line in outcome.lines():
                self.stdout.write(line)

    def _train(self, options: dict[str, Any]) -> TrainingOutcome:
        names = TrainingConfig.__dataclass_fields__
        speaks = options["verbosity"] >= 1 and not options["json"]
        with interruptible(), deadline(options["timeout_minutes"]):
            return train_model(
                configure(options["preset"], **{name: options.get(name) for name in names}),
                sources=find_sources(options["source"] or ()),
                activate=options["activate"],
                using=options["database"],
                progress=self.stdout.write if speaks else silent,
                show_progress_bar=speaks and sys.stdout.isatty(),
            )


def _minutes(value: str) -> float:
    minutes = float(value)
    if not 0 < minutes < math.inf:
        raise ArgumentTypeError(f"{value} is no number of minutes above 0")
    return minutes
