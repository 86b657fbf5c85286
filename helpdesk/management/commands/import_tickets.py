from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from helpdesk.cells import FIELDS, UNSET, ImportOptions
from helpdesk.importing import ImportFileError, ImportReport, Rejection, import_tickets
from helpdesk.models import Ticket
from ticket_priority.priorities import Priority


class Command(BaseCommand):
    """Import tickets from a CSV file."""

    help = (
        "Import tickets from a CSV file, all of them or none. Rows with a priority count as "
        "labelled by a person; rows without are left for classify_tickets."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        for option, pair, text in (
            ("--map", "FIELD=COLUMN", f"its column of a field ({', '.join(FIELDS)})"),
            ("--priority-map", "WORD=PRIORITY", f"how it writes low, medium, high or {UNSET}"),
            ("--status-map", "WORD=STATUS", f"how it writes {', '.join(Ticket.Status.values)}"),
        ):
            text = f"{text}; default: the same"
            parser.add_argument(
                option, nargs="+", action="extend", default=[], metavar=pair, help=text
            )
        parser.add_argument("--delimiter", help="one character, or tab; default: found out")
        parser.add_argument("--encoding", default="utf-8-sig", help="default: %(default)s")
        parser.add_argument(
            "--date-format", metavar="FORMAT", help='such as "%%d.%%m.%%Y %%H:%%M"; default: ISO'
        )
        parser.add_argument(
            "--status",
            choices=Ticket.Status.values,
            default=Ticket.Status.OPEN.value,
            help="of rows that name none; default: %(default)s",
        )
        parser.add_argument("--queue", default="", help="of rows that name none: name or slug")
        parser.add_argument("--language", default="", help="of rows that name none: a code")
        parser.add_argument(
            "--skip-invalid", action="store_true", help="import the valid rows, leave the others"
        )
        parser.add_argument("--dry-run", action="store_true", help="check the file, write nothing")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, *args: Any, **given: Any) -> None:
        self.verbosity: int = given["verbosity"]
        self.as_json: bool = given["json"]
        options = self._options(given)
        try:
            report = import_tickets(
                given["file"],
                options,
                on_rejection=self._show_rejection,
                on_progress=self._show_progress,
            )
        except ImportFileError as error:
            if self.as_json:
                self.stdout.write(json.dumps({"ok": False, "error": str(error)}))
            raise CommandError(f"{error} Nothing was imported.") from error
        self._conclude(report, options)

    def _options(self, given: dict[str, Any]) -> ImportOptions:
        delimiter = given["delimiter"]
        if delimiter in ("tab", "\\t"):
            delimiter = "\t"
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise CommandError("--delimiter takes one character, or the word tab.")
        return ImportOptions(
            columns=_pairs("--map", given["map"], keys=FIELDS),
            delimiter=delimiter,
            encoding=given["encoding"],
            priorities=_words(
                "--priority-map", given["priority_map"], [*(p.slug for p in Priority), UNSET]
            ),
            statuses=_words("--status-map", given["status_map"], Ticket.Status.values),
            default_status=given["status"],
            default_queue=given["queue"],
            default_language=given["language"].lower(),
            date_format=given["date_format"],
            skip_invalid=given["skip_invalid"],
            dry_run=given["dry_run"],
        )

    def _show_rejection(self, rejection: Rejection) -> None:
        if not self.as_json and self.verbosity >= 1:
            self.stderr.write(str(rejection))

    def _show_progress(self, rows: int, share: float) -> None:
        if not self.as_json and self.verbosity >= 1:
            self.stderr.write(f"{rows} rows read ({share:.0%} of the file)", self.style.NOTICE)

    def _conclude(self, report: ImportReport, options: ImportOptions) -> None:
        failed = report.rejected > 0 and (
            not options.skip_invalid or report.rejected == report.read
        )
        if self.as_json:
            body = {"ok": not failed, "dry_run": options.dry_run, **asdict(report)}
            self.stdout.write(json.dumps(body, ensure_ascii=False))
        if failed:
            raise CommandError(
                f"{report.rejected} of {report.read} rows were rejected. Nothing was imported."
            )
        if self.as_json or self.verbosity < 1:
            return
        if options.dry_run:
            valid = report.read - report.rejected
            self.stdout.write(f"{valid} of {report.read} rows are valid. Nothing was written.")
            return
        self.stdout.write(
            self.style.SUCCESS(
                f"Imported {report.imported} of {report.read} rows, "
                f"{report.labelled} of them with a priority."
            )
        )


def _pairs(option: str, given: list[str], *, keys: tuple[str, ...] = ()) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise CommandError(f'{option}: "{pair}" is not of the form NAME=VALUE.')
        if keys and key not in keys:
            raise CommandError(f'{option}: "{key}" is none of {", ".join(keys)}.')
        if key in pairs:
            raise CommandError(f'{option}: "{key}" is given twice.')
        pairs[key] = value
    return pairs


def _words(option: str, given: list[str], known: list[str]) -> dict[str, str]:
    words = {}
    for word, ours in _pairs(option, given).items():
        if ours.lower() not in known:
            raise CommandError(f'{option}: "{ours}" is none of {", ".join(known)}.')
        words[word.casefold()] = ours.lower()
    return words
