from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from typing import Any

from django.core.management.base import CommandError

from ticket_priority.management.base import SourceCommand
from ticket_priority.models import ModelVersion
from ticket_priority.predictions.reclassify import backfill
from ticket_priority.predictions.shadow import batches, waiting
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import find_sources


class Command(SourceCommand):
    """Classify the tickets that have no priority yet, or let the shadow answer."""

    stopped = "Stopped. Run it again to resume."
    help = (
        "Classify every ticket whose priority is unset, in batches. Run it again to resume; "
        "tickets that the active model version has answered are skipped."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--limit", type=int, help="stop after so many tickets a source")
        parser.add_argument("--dry-run", action="store_true", help="classify, but write nothing")
        parser.add_argument(
            "--shadow",
            action="store_true",
            help="instead, let the shadow answer the tickets that the active version has answered "
            "since it became the shadow; no ticket is changed",
        )
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        if options["shadow"]:
            self._ask_shadow()
            return
        totals = {
            source.label: self._classify(source, options)
            for source in find_sources(options["source"])
        }
        self.report(totals)
        if failed := sum(counts["failed"] for counts in totals.values()):
            raise CommandError(f"{failed} tickets could not be classified; the log says why.")

    def _classify(self, source: TicketSource, options: dict[str, Any]) -> Counter[str]:
        dry_run, using = options["dry_run"], options["database"]
        undecided = source.unset_rows(using).count()
        self.say(f"{source.label}: {undecided} tickets without priority")
        total: Counter[str] = Counter()
        seen = 0
        for counts, size in backfill(source, dry_run=dry_run, limit=options["limit"], using=using):
            total += counts
            seen += size
            self.say(f"  {seen} of {undecided}")
        done = ", ".join(f"{count} {name}" for name, count in total.items()) or "nothing to do"
        self.say(f"  {'would be: ' if dry_run else ''}{done}")
        return total

    def _ask_shadow(self) -> None:
        version = ModelVersion.objects.shadow()
        if version is None:
            raise CommandError(
                "No version is the shadow: manage.py activate_priority_model NAME --shadow"
            )
        answered, left = 0, waiting(version)
        self.say(f"{version.name}: {left} tickets to answer")
        try:
            for size in batches():
                answered += size
                self.say(f"  {answered} of {left}")
        except Exception as error:
            # A broken artifact may raise anything.
            raise CommandError(f"The shadow {version.name} fails: {error}") from error
        self.report({"shadow": version.name, "answered": answered})
        if answered == 0 < left:
            raise CommandError(
                f"{version.name} was not asked: another process is at work on it, or workers died "
                "of it, which the admin page of the model version then says."
            )
