from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError

from ticket_priority.management.base import SourceCommand
from ticket_priority.ml.evaluation.report import data_lines
from ticket_priority.sources.registry import find_sources
from ticket_priority.training.dataset import collect
from ticket_priority.training.diagnosis import FITTED_ROWS, Diagnosis, Suspect, diagnose


class Command(SourceCommand):
    """Show what the labelled tickets are worth before a model is trained on them."""

    help = (
        "Look at the tickets whose priority people set: what training would learn from, which "
        "labels look wrong, how good a model could get, whether more labels would help. Exits "
        "with 1 when training would be refused. Writes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--suspects", type=_whole, default=20, help="how many likely mislabels to list"
        )
        parser.add_argument("--show-texts", action="store_true", help="with their texts")
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        sources, with_texts = find_sources(options["source"]), options["show_texts"]
        diagnosis = diagnose(collect(sources, using=options["database"], progress=self.say))
        suspects = diagnosis.suspects[: options["suspects"]]
        report = {
            **diagnosis.figures,
            "findings": list(diagnosis.findings()),
            "suspects": [one.as_dict(with_text=with_texts) for one in suspects],
            "refusal": diagnosis.refusal,
        }
        self.report(report, _report(diagnosis, suspects, show_texts=with_texts))
        if diagnosis.refusal:
            raise CommandError(f"Training would be refused. {diagnosis.refusal}")


def _whole(value: str) -> int:
    if not value.isdecimal():
        raise ArgumentTypeError(f"{value!r} is not a whole number of at least 0")
    return int(value)


def _report(diagnosis: Diagnosis, suspects: list[Suspect], *, show_texts: bool) -> Iterator[str]:
    figures = diagnosis.figures
    yield from data_lines(figures)
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
