"""Certify a model version for what AUTO_APPLY and COSTS ask today, and report the audit."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.ml.policy.rule import Certificate, Certification
from ticket_priority.ml.types import silent
from ticket_priority.models import ModelVersion
from ticket_priority.reports.audit import Agreement, audit_agreement
from ticket_priority.sources.registry import find_sources
from ticket_priority.training.certify import recertify


class Command(BaseCommand):
    help = (
        "Find out, on labelled tickets that a model version was not fitted to, which of its "
        "answers are right as often as AUTO_APPLY asks, and keep that with the version: other "
        "answers are only suggested. Says too how often people agreed with the predictions that "
        "AUDIT_SHARE holds back. Exits with 1 when nothing is certified."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help="a model version's name; default: the active")
        parser.add_argument("--source", action="append", help="app_label.Model; default: all")
        parser.add_argument(
            "--database", choices=tuple(connections), help="database alias of the tickets"
        )
        parser.add_argument("--json", action="store_true", help="print everything as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        say = silent if options["json"] or options["verbosity"] < 1 else self.stdout.write
        version, using = _find(options["name"]), options["database"]
        found: Certification | None = None
        audited: list[tuple[str, Agreement | None]] = []
        try:
            sources = find_sources(options["source"] or ())
            audited += [
                (one.name, audit_agreement(one, sources, using=using))
                for one in ModelVersion.objects.all()
            ]
            for line in _audit_lines(audited):
                say(line)
            found = recertify(version, sources, using=using, progress=say)
        except (TicketPriorityError, ImportError) as error:
            raise CommandError(f"{version.name} was not certified: {error}") from error
        except KeyboardInterrupt:
            raise CommandError(
                "Stopped. Its certificates are as they were.", returncode=130
            ) from None
        finally:
            # The audit is worth reading where nothing can be certified too.
            if options["json"]:
                self.stdout.write(json.dumps(_as_json(version, found, audited), indent=2))
        for line in _lines(found):
            say(line)
        if not found.holding:
            raise CommandError(
                f"Nothing is certified, so every answer of {version.name} is only suggested."
            )


def _find(name: str | None) -> ModelVersion:
    version = (
        ModelVersion.objects.filter(name=name).first() if name else ModelVersion.objects.active()
    )
    if version is None:
        missing = f"There is no model version {name!r}." if name else "No model version is active."
        raise CommandError(f"{missing} manage.py activate_priority_model --list shows them.")
    return version


def _lines(found: Certification) -> Iterator[str]:
    yield (
        f"{'class':<8}{'language':<10}{'asked':>7}{'from':>8}{'tickets':>9}{'right':>8}"
        f"{'at least':>10}{'covers':>8}"
    )
    for row in found.certificates:
        yield _line(row)


def _line(row: Certificate) -> str:
    cells = (
        f"{row.priority:<8}{row.language or 'others':<10}{row.target:>7.3f}"
        f"{_figure(row.threshold, 4):>8}{row.rows:>9}{_figure(row.precision):>8}"
        f"{_figure(row.lower_bound):>10}{row.coverage:>8.0%}"
    )
    return cells if row.holds else f"{cells}  not certified: {row.reason}"


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _audit_lines(audited: list[tuple[str, Agreement | None]]) -> Iterator[str]:
    for name, agreement in audited:
        if agreement is not None:
            yield (
                f"Audit of {name}: right on {agreement.agreeing} of {agreement.rows} tickets that "
                f"people judged without seeing its prediction, {agreement.accuracy:.3f}"
                f"{_between(agreement.interval)}"
            )


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"


def _as_json(
    version: ModelVersion, found: Certification | None, audited: list[tuple[str, Agreement | None]]
) -> dict[str, Any]:
    return {
        "model_version": version.name,
        "certification": None if found is None else found.as_dict(),
        "audit": {
            name: {**asdict(agreement), "accuracy": agreement.accuracy}
            for name, agreement in audited
            if agreement is not None
        },
    }
