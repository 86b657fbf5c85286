from __future__ import annotations

import math
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError

from ticket_priority.conf import ACTIVATE_CHOICES
from ticket_priority.exceptions import DatasetError
from ticket_priority.management.base import SourceCommand
from ticket_priority.ml.hyperparameters.arguments import add_to
from ticket_priority.ml.types import TrainingConfig
from ticket_priority.models import ModelVersion
from ticket_priority.sources.registry import find_sources
from ticket_priority.training.history import recorded
from ticket_priority.training.registration import TrainingOutcome
from ticket_priority.training.run import configure, train_model
from ticket_priority.training.time_limit import deadline, interruptible

_STARTER_HINT = " Until then, `manage.py activate_priority_model --starter` gives a first guess."


class Command(SourceCommand):
    """Train on the tickets whose priority people set."""

    stopped = "Stopped. The active model is as it was."
    help = (
        "Train a priority model on the tickets whose priority people set, publish it, and "
        "activate it when it is at least as good as the active one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--activate", choices=ACTIVATE_CHOICES, default="if-better")
        parser.add_argument(
            "--timeout-minutes",
            type=_minutes,
            help="end the run, and what it has started, after so many minutes",
        )
        super().add_arguments(parser)
        # The key of the TrainingRun that the schedule created for this run.
        parser.add_argument("--run", type=int, help=SUPPRESS)
        add_to(parser.add_argument_group('training (defaults from TICKET_PRIORITY["TRAINING"])'))

    def run(self, options: dict[str, Any]) -> None:
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
        self.report(outcome.as_dict(), outcome.lines())

    def _train(self, options: dict[str, Any]) -> TrainingOutcome:
        names = TrainingConfig.__dataclass_fields__
        with interruptible(), deadline(options["timeout_minutes"]):
            return train_model(
                configure(options["preset"], **{name: options.get(name) for name in names}),
                sources=find_sources(options["source"]),
                activate=options["activate"],
                using=options["database"],
                progress=self.say,
                show_progress_bar=self.speaks and sys.stdout.isatty(),
            )


def _minutes(value: str) -> float:
    minutes = float(value)
    if not 0 < minutes < math.inf:
        raise ArgumentTypeError(f"{value} is not a number of minutes above 0")
    return minutes
