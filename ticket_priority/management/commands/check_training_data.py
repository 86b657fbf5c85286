"""Say what the labelled tickets are worth before anything is trained on them."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.ml.evaluation import report as training_report
from ticket_priority.ml.types import silent
from ticket_priority.sources.registry import find_sources
from ticket_priority.training import dataset as datasets
from ticket_priority.training.diagnosis import FITTED_ROWS, Diagnosis, Suspect, diagnose


class Command(BaseCommand):
    help = (
        "Look at the tickets whose priority people set: what training would learn from, which "
        "labels look wrong, how good a model could get, whether more labels would help. Exits "
        "with 1 when training would be refused. Nothing is written."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--source", action="append", help="app_label.Model; default: all")
        parser.add_argument(
            "--database", choices=tuple(connections), help="database alias of the tickets"
        )
        parser.add_argument(
            "--suspects", type=_whole, default=20, help="how many likely mislabels to list"
        )
        parser.add_argument("--show-texts", action="store_true", help="with their texts")
        parser.add_argument("--json", action="store_true", help="print everything as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        say = silent if options["json"] or options["verbosity"] < 1 else self.stdout.write
        try:
            sources = find_sources(options["source"] or ())
            dataset = datasets.collect(sources, using=options["database"], progress=say)
            diagnosis = diagnose(dataset)
        except TicketPriorityError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped.", returncode=130) from None
        suspects = diagnosis.suspects[: options["suspects"]]
        if options["json"]:
            report = {
                **diagnosis.figures,
                "findings": list(diagnosis.findings()),
                "suspects": [one.as_dict(with_text=options["show_texts"]) for one in suspects],
                "refusal": diagnosis.refusal,
            }
            self.stdout.write(json.dumps(report, indent=2, ensure_ascii=False))
        for line in _report(diagnosis, suspects, show_texts=options["show_texts"]):
            say(line)
        if diagnosis.refusal:
            raise CommandError(f"Training would be refused. {diagnosis.refusal}")


def _whole(value: str) -> int:
    if not value.isdecimal():
        raise ArgumentTypeError(f"{value!r} is no number of at least 0")
    return int(value)


def _report(diagnosis: Diagnosis, suspects: list[Suspect], *, show_texts: bool) -> Iterator[str]:
    figures = diagnosis.figures
    yield from training_report.data_lines(figures)
    for name, counts in figures["classes"].items():
        yield f"{name:<12}" + ", ".join(f"{count} {label}" for label, count in counts.items())
    languages = figures["languages"]
    yield "Languages   " + ", ".join(
        f"{count} {language or 'unknown'}" for language, count in languages.items()
    )
    yield from _fitted(figures)
    for finding in diagnosis.findings():
        yield f"- {finding}"
    if suspects:
        yield "Likely mislabels, the likeliest first:"
    for one in suspects:
        said = one.as_dict()
        yield (
            f"  {said['source']} {said['pk']}: {said['label']} ({said['provenance']}), looks "
            f"{said['looks_like']} ({said['probability']:.2f})"
        )
        if show_texts:
            yield "    " + one.row.text.replace("\n", "\n    ")


def _fitted(figures: dict[str, Any]) -> Iterator[str]:
    fitted = figures["fitted"]
    if fitted is None:
        yield (
            "No quick model was fitted: there are too few tickets, or scikit-learn is missing "
            '(pip install "django-ticket-priority[ml]", or [linear] for linear models alone)'
        )
        return
    drawn = ", drawn from all" if fitted["rows"] == FITTED_ROWS else ""
    yield (
        f"A quick model on {fitted['rows']} tickets{drawn}, out of fold: accuracy "
        f"{fitted['accuracy']:.3f}, macro F1 {fitted['macro_f1']:.3f} (the most frequent class "
        f"alone: {fitted['majority_macro_f1']:.3f})"
    )
    curve = ", ".join(
        f"{one['macro_f1']:.3f} from {one['rows']}" for one in fitted["learning_curve"]
    )
    yield f"Learning curve, macro F1: {curve}"
    reach = figures["reach"]
    if reach["ceiling"] is None:
        yield "How good a model could get is unknown: too few tickets have a copy to compare with"
    else:
        yield (
            f"A model should get an accuracy of at least {reach['floor']:.2f} and hardly more than "
            f"{reach['ceiling']:.2f}: so well do the labels of {reach['compared']} tickets agree "
            "with those of their copies, if the rest are labelled alike"
        )
