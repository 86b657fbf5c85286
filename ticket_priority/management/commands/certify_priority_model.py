from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from ticket_priority.classifiers import find_version
from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.management.base import SourceCommand
from ticket_priority.ml.policy.rule import Certification
from ticket_priority.models import ModelVersion
from ticket_priority.reports.audit import Agreement, audit_agreement
from ticket_priority.sources.registry import find_sources
from ticket_priority.training.certify import recertify


class Command(SourceCommand):
    """Certify a model version for the present AUTO_APPLY and COSTS, and report the audit."""

    stopped = "Stopped. Its certificates are as they were."
    help = (
        "Measure, on labelled tickets that a model version was not fitted to, which of its answers "
        "are right as often as AUTO_APPLY asks, and store that with the version: other answers are "
        "only suggested. Also print how often people agreed with the predictions that AUDIT_SHARE "
        "holds back. Exits with 1 when nothing is certified."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help="a model version's name; default: the active")
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        version, using = find_version(options["name"]), options["database"]
        found: Certification | None = None
        audited: dict[str, Agreement] = {}
        try:
            sources = find_sources(options["source"])
            for one in ModelVersion.objects.all():
                if agreement := audit_agreement(one, sources, using=using):
                    audited[one.name] = agreement
                    self.say(_audit_line(one.name, agreement))
            found = recertify(version, sources, using=using, progress=self.say)
        except (TicketPriorityError, ImportError) as error:
            raise CommandError(f"{version.name} was not certified: {error}") from error
        finally:
            # The audit is worth reading even where nothing can be certified.
            document = {
                "model_version": version.name,
                "certification": found and found.as_dict(),
                "audit": {name: asdict(agreement) for name, agreement in audited.items()},
            }
            self.report(document, _lines(found) if found else ())
        if not found.holding:
            raise CommandError(
                f"Nothing is certified, so every answer of {version.name} is only suggested."
            )


def _lines(found: Certification) -> Iterator[str]:
    yield (
        f"{'class':<8}{'language':<10}{'asked':>7}{'from':>8}{'tickets':>9}{'right':>8}"
        f"{'at least':>10}{'covers':>8}"
    )
    for row in found.certificates:
        cells = (
            f"{row.priority:<8}{row.language or 'others':<10}{row.target:>7.3f}"
            f"{_figure(row.threshold, 4):>8}{row.rows:>9}{_figure(row.precision):>8}"
            f"{_figure(row.lower_bound):>10}{row.coverage:>8.0%}"
        )
        yield cells if row.holds else f"{cells}  not certified: {row.reason}"


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _audit_line(name: str, agreement: Agreement) -> str:
    low_high = agreement.interval
    interval = "" if low_high is None else f" ({low_high[0]:.3f} to {low_high[1]:.3f})"
    return (
        f"Audit of {name}: right on {agreement.agreeing} of {agreement.rows} tickets that people "
        f"judged without seeing its prediction, {agreement.accuracy:.3f}{interval}"
    )
