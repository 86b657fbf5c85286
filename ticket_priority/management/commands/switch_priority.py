from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from ticket_priority.conf import get_settings
from ticket_priority.management.base import PluginCommand
from ticket_priority.predictions.kill_switch import SwitchState, read, turn
from ticket_priority.predictions.workers import wake_workers
from ticket_priority.queues import has_workers


class Command(PluginCommand):
    """Switch classification off or on, or print which it is."""

    help = (
        "Switch classification off or on, in every process at once. Switched off, tickets are "
        "saved without a priority and wait."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("turn", choices=("off", "on", "status"))
        parser.add_argument("--reason", default="", help="stored with the change")
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        wanted = options["turn"]
        if wanted == "on" and not get_settings().enabled:
            raise CommandError(
                'The settings switch it off: set TICKET_PRIORITY["ENABLED"] to True first.'
            )
        if wanted != "status":
            changed = turn(on=wanted == "on", reason=options["reason"]) is not None
            if changed and wanted == "on":
                wake_workers()
        state = read()
        since = state.since.isoformat(timespec="seconds") if state.since else None
        self.report({**asdict(state), "since": since}, _lines(state, since))


def _lines(state: SwitchState, since: str | None) -> Iterator[str]:
    if not state.enabled:
        yield 'Classification is off: TICKET_PRIORITY["ENABLED"] is False.'
        return
    when = f" since {since}" if since else ""
    why = f": {state.reason}" if state.reason else "."
    yield f"Classification is {'on' if state.on else 'off'}{when}{why}"
    if state.on and since and not has_workers():
        yield "What waited meanwhile is classified by manage.py classify_tickets."
