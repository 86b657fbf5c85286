"""Switch classification off and on."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ticket_priority.conf import get_settings
from ticket_priority.predictions import kill_switch as switch
from ticket_priority.predictions.kill_switch import SwitchState
from ticket_priority.predictions.workers import wake_workers
from ticket_priority.queues import has_workers


class Command(BaseCommand):
    help = (
        "Switch classification off or on, in every process at once. Switched off, tickets are "
        "saved without a priority and wait."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("turn", choices=("off", "on", "status"))
        parser.add_argument("--reason", default="", help="kept beside the time, for others to read")
        parser.add_argument("--json", action="store_true", help="print as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        turn = options["turn"]
        if turn == "on" and not get_settings().enabled:
            raise CommandError(
                'The settings switch it off: set TICKET_PRIORITY["ENABLED"] to True first.'
            )
        if turn != "status":
            changed = switch.turn(on=turn == "on", reason=options["reason"]) is not None
            if changed and turn == "on":
                wake_workers()
        state = switch.read()
        if options["json"]:
            self.stdout.write(json.dumps(asdict(state), default=_time))
        elif options["verbosity"] >= 1:
            for line in _lines(state):
                self.stdout.write(line)


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _lines(state: SwitchState) -> Iterator[str]:
    if not state.enabled:
        yield 'Classification is off: TICKET_PRIORITY["ENABLED"] is False.'
        return
    since = f" since {_time(state.since)}" if state.since else ""
    why = f": {state.reason}" if state.reason else "."
    yield f"Classification is {'on' if state.on else 'off'}{since}{why}"
    if state.on and state.since and not has_workers():
        yield "What waited meanwhile is classified by manage.py classify_tickets."
