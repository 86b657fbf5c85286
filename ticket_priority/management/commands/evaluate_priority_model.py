from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import CommandError

from ticket_priority.classifiers import find_version
from ticket_priority.management.base import SourceCommand
from ticket_priority.ml.evaluation import report
from ticket_priority.ml.evaluation.figures import Report
from ticket_priority.ml.types import CLASS_NAMES
from ticket_priority.models import ModelVersion
from ticket_priority.reports.replay import Period, replay
from ticket_priority.reports.test_split import evaluate
from ticket_priority.sources.registry import find_sources


class Command(SourceCommand):
    """Score a model version on the test split, or on the tickets of a period."""

    help = (
        "Score a model version, as it is served, on the test split that a training of today would "
        "have. With --since, replay it instead: classify every ticket of a period and count how "
        "its answers differ from what was applied then, from what the tickets hold now, and from "
        "the labels people gave. Writes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help="a model version's name; default: the active")
        parser.add_argument("--since", metavar="DATE", help="replay the tickets created from then")
        parser.add_argument(
            "--until", metavar="DATE", help="with --since: the last day, or a time before which"
        )
        parser.add_argument(
            "--limit", type=int, help="with --since: stop after so many tickets a source"
        )
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        version = find_version(options["name"])
        if options["since"] is None:
            self._evaluate(version, options)
        else:
            self._replay(version, options)

    def _evaluate(self, version: ModelVersion, options: dict[str, Any]) -> None:
        if options["until"] is not None or options["limit"] is not None:
            raise CommandError("--until and --limit are for a replay: give --since too.")
        sources = find_sources(options["source"])
        figures = evaluate(version, sources, using=options["database"], progress=self.say)
        self.report(figures, _evaluation_lines(version, figures))

    def _replay(self, version: ModelVersion, options: dict[str, Any]) -> None:
        if options["limit"] is not None and options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        try:
            period = Period.parse(options["since"], options["until"])
        except ValueError as error:
            raise CommandError(f"{error}.") from error
        active = ModelVersion.objects.active()
        beside = [active] if active is not None and active != version else []
        replays = replay(
            [version, *beside],
            find_sources(options["source"]),
            period,
            limit=options["limit"],
            using=options["database"],
            progress=self.say,
        )
        document = {
            "since": period.since.isoformat(),
            "until": None if period.until is None else period.until.isoformat(),
            "replays": replays,
        }
        self.report(document, _replay_lines(replays))
        if failed := sum(one["failed"] for one in replays):
            raise CommandError(f"{failed} tickets could not be classified; the log says why.")


def _evaluation_lines(version: ModelVersion, figures: dict[str, Any]) -> Iterator[str]:
    yield from report.data_lines(figures["dataset"])
    yield from report.lines(figures)
    yield f"Model version  {version.name}{' (active)' if version.is_active else ''}"
    if figures["caution"]:
        yield f"Note: {figures['caution']}."


def _replay_lines(counted: Sequence[dict[str, Any]]) -> Iterator[str]:
    row = report.row
    yield ""
    yield row(
        f"{counted[0]['tickets']} tickets",
        *(f"{one['model_version']}{' (active)' if one['active'] else ''}" for one in counted),
    )
    for name in reversed(CLASS_NAMES):
        yield row(name, *(_share(one["classes"][name], one["tickets"]) for one in counted))
    for name, title in (("without_text", "without text"), ("failed", "failed")):
        if any(one[name] for one in counted):
            yield row(title, *(str(one[name]) for one in counted))
    for name, title in (("applied_then", "applied then"), ("held_now", "held now")):
        for key in ("same", "higher", "lower"):
            cells = (_share(one[name][key], one[name]["compared"]) for one in counted)
            yield row(f"{key} than {title}" if key != "same" else f"same as {title}", *cells)
    yield from _label_lines([one["labels"] for one in counted])
    for one in counted:
        if one["caution"]:
            yield f"Note: {one['caution']}."


def _label_lines(labels: Sequence[dict[str, Any] | None]) -> Iterator[str]:
    known = [Report.read(figures) for figures in labels if figures is not None]
    if len(known) < len(labels):
        yield "People gave no labels to these tickets."
        return
    row = report.row
    yield row("labels people gave", *(str(one.rows) for one in known))
    yield row("accuracy", *(report.with_interval(one, "accuracy") for one in known))
    for name in CLASS_NAMES:
        yield row(
            f"{name}: precision / recall",
            *(report.precision_recall(one, name) for one in known),
        )


def _share(count: int, whole: int) -> str:
    return f"{count} ({count / whole:.0%})" if whole else "-"
