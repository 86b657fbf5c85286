"""Classify the tickets that nobody and nothing has given a priority."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import shadow
from ticket_priority.predictions.reclassify import backfill
from ticket_priority.sources.registry import find_sources


class Command(BaseCommand):
    help = (
        "Classify every ticket whose priority is unset, in batches. Run it again to resume; "
        "tickets that the active model version has answered are passed over."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--source", action="append", help="app_label.Model; default: all")
        parser.add_argument("--limit", type=int, help="stop after so many tickets a source")
        parser.add_argument(
            "--database", choices=tuple(connections), help="database alias of the tickets"
        )
        parser.add_argument("--dry-run", action="store_true", help="classify, but write nothing")
        parser.add_argument(
            "--shadow",
            action="store_true",
            help="instead, let the shadow answer the tickets that the active version has answered "
            "since it became the shadow; no ticket is changed",
        )
        parser.add_argument("--json", action="store_true", help="print the counts as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["shadow"]:
            self._ask_shadow(options)
            return
        totals: dict[str, Counter[str]] = {}
        try:
            for source in find_sources(options["source"] or ()):
                totals[source.label] = self._classify(source, options)
        except TicketPriorityError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. Run it again to resume.", returncode=130) from None
        if options["json"]:
            self.stdout.write(json.dumps(totals, indent=2))
        failed = sum(counts["failed"] for counts in totals.values())
        if failed:
            raise CommandError(f"{failed} tickets could not be classified; the log says why.")

    def _classify(self, source: Any, options: dict[str, Any]) -> Counter[str]:
        speaks = options["verbosity"] >= 1 and not options["json"]
        undecided = source.unset_rows(options["database"]).count()
        if speaks:
            self.stdout.write(f"{source.label}: {undecided} tickets without priority")
        total: Counter[str] = Counter()
        seen = 0
        batches = backfill(
            source,
            dry_run=options["dry_run"],
            limit=options["limit"],
            using=options["database"],
        )
        for counts, size in batches:
            total += counts
            seen += size
            if speaks:
                self.stdout.write(f"  {seen} of {undecided}", ending="\n")
        if speaks:
            done = ", ".join(f"{count} {name}" for name, count in total.items()) or "nothing to do"
            prefix = "would be: " if options["dry_run"] else ""
            self.stdout.write(f"  {prefix}{done}")
        return total

    def _ask_shadow(self, options: dict[str, Any]) -> None:
        version = ModelVersion.objects.shadow()
        if version is None:
            raise CommandError(
                "No version is the shadow: manage.py activate_priority_model NAME --shadow"
            )
        speaks = options["verbosity"] >= 1 and not options["json"]
        answered, left = 0, shadow.waiting(version)
        if speaks:
            self.stdout.write(f"{version.name}: {left} tickets to answer")
        try:
            for size in shadow.batches():
                answered += size
                if speaks:
                    self.stdout.write(f"  {answered} of {left}")
        except KeyboardInterrupt:
            raise CommandError("Stopped. Run it again to resume.", returncode=130) from None
        except Exception as error:
            # Whatever a broken artifact raises, here is who should know.
            raise CommandError(f"The shadow {version.name} fails: {error}") from error
        if options["json"]:
            self.stdout.write(json.dumps({"shadow": version.name, "answered": answered}))
        if answered == 0 < left:
            raise CommandError(
                f"{version.name} was not asked: another process is at it, or workers have died of "
                "it; the model version's admin page says so then."
            )
