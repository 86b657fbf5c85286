"""Report the status of classification to a person or a monitor."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand
from django.db import Error

from ticket_priority.reports import status
from ticket_priority.reports.status import Finding, Level, Status, Thresholds, VersionStatus

PER_PROCESS = (
    "The loaded model and the circuit breaker are each process's own: the API's health/ tells "
    "of the one that answers."
)


class Command(BaseCommand):
    """Print the status and its findings; the exit code is the worst level."""

    help = (
        "Say what serves, what waits and what is wrong. Exits with 0 where all is well, 1 for a "
        "warning, 2 where it is critical. Nothing is written, and no model is loaded."
    )
    # A monitor asks often, and `manage.py check` reports the checks.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        default = Thresholds()
        for name, seconds, text in (
            ("--max-age", default.max_age, "warn when the oldest ticket waits for so long"),
            ("--critical-age", default.critical_age, "critical when it waits for so long"),
            ("--failed-within", default.failed_within, "warn so long after one was given up"),
        ):
            parser.add_argument(
                name,
                type=float,
                default=seconds,
                metavar="SECONDS",
                help=f"{text}; 0: never; default: {seconds:g}",
            )
        parser.add_argument("--json", action="store_true", help="print as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        thresholds = Thresholds(
            options["max_age"], options["critical_age"], options["failed_within"]
        )
        try:
            found = status.read()
            findings = status.findings(found, thresholds)
        except Error as error:
            found = None
            findings = [Finding(Level.CRITICAL, f"The database cannot be asked: {error}")]
        level = max((finding.level for finding in findings), default=Level.OK)
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(found, findings, level), default=_time))
        elif options["verbosity"] >= 1:
            for line in _lines(found, findings, level):
                self.stdout.write(line)
        if level is not Level.OK:
            sys.exit(level)


def _as_json(found: Status | None, findings: list[Finding], level: Level) -> dict[str, Any]:
    told = {
        "level": level.name.lower(),
        "code": int(level),
        "findings": [
            {"level": finding.level.name.lower(), "says": finding.says} for finding in findings
        ],
    }
    if found is None:
        return told
    backlog = found.backlog
    told |= asdict(found)
    told["backlog"] = {
        "pending": backlog.count,
        "oldest_seconds": _oldest_seconds(found),
        "reasons": {reason: asdict(group) for reason, group in backlog.waiting.items()},
        "failed": backlog.failed,
        "last_failed_at": backlog.last_failed_at,
    }
    return told


def _time(value: object) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)


def _oldest_seconds(found: Status) -> int | None:
    at = found.backlog.oldest_at
    return None if at is None else int((found.at - at).total_seconds())


def _lines(found: Status | None, findings: list[Finding], level: Level) -> Iterator[str]:
    yield level.name + (f": {findings[0].says}" if findings else "")
    yield from (f"{finding.level.name}: {finding.says}" for finding in findings[1:])
    if found is None:
        return
    yield ""
    yield f"active    {_version(found.active)}"
    yield f"shadow    {_version(found.shadow)}"
    yield f"switch    {_switch(found)}"
    for label, mode in found.modes.items():
        yield f"source    {label}, {mode}"
    yield f"pending   {_pending(found)}"
    last = found.backlog.last_failed_at
    yield f"failed    {found.backlog.failed}" + (f", the last at {_time(last)}" if last else "")
    yield f"queue     {_queue(found)}"
    yield f"training  {_training(found)}"
    yield ""
    yield PER_PROCESS


def _version(version: VersionStatus | None) -> str:
    if version is None:
        return "none"
    starter = ", a starter" if version.is_starter else ""
    error = f"; {version.error}" if version.error else ""
    return f"{version.name}{_since(version.since)}{starter}{error}"


def _since(at: datetime | None) -> str:
    return f" since {_time(at)}" if at else ""


def _switch(found: Status) -> str:
    if not found.switch.enabled:
        return 'off: TICKET_PRIORITY["ENABLED"] is False'
    reason = f": {found.switch.reason}" if found.switch.reason else ""
    return ("on" if found.switch.on else "off") + _since(found.switch.since) + reason


def _pending(found: Status) -> str:
    backlog = found.backlog
    if not backlog.count:
        return "0"
    reasons = ", ".join(f"{reason} {group.count}" for reason, group in backlog.waiting.items())
    return f"{backlog.count}, the oldest for {_oldest_seconds(found)} s: {reasons}"


def _queue(found: Status) -> str:
    if not found.queue.installed:
        return "none"
    sweep = found.queue.next_sweep_at
    due = f"next sweep {_time(sweep)}" if sweep else "no sweep scheduled"
    return f"workers {found.queue.workers}, {due}"


def _training(found: Status) -> str:
    run = found.training_run
    if run is None:
        return "never"
    message = f": {run['message']}" if run["message"] else ""
    return f"{run['state']} ({run['trigger']}){_since(run['started_at'])}{message}"
