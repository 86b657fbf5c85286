"""Switch classification off and on."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ticket_priority import queue, switch
from ticket_priority.conf import get_settings
from ticket_priority.models import SwitchChange


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
            if changed and turn == "on" and queue.is_installed():
                queue.nudge()
        if options["json"]:
            self.stdout.write(json.dumps(_status()))
        elif options["verbosity"] >= 1:
            for line in _lines(_status()):
                self.stdout.write(line)


def _status() -> dict[str, Any]:
    newest = SwitchChange.objects.first()
    return {
        "on": switch.is_on(),
        "enabled": get_settings().enabled,
        "since": newest and newest.created_at.isoformat(timespec="seconds"),
        "reason": newest and newest.reason,
    }


def _lines(status: dict[str, Any]) -> list[str]:
    if not status["enabled"]:
        return ['Classification is off: TICKET_PRIORITY["ENABLED"] is False.']
    state = "on" if status["on"] else "off"
    since = f" since {status['since']}" if status["since"] else ""
    why = f": {status['reason']}" if status["reason"] else "."
    lines = [f"Classification is {state}{since}{why}"]
    if status["on"] and not queue.is_installed():
        lines.append("What waited meanwhile is classified by manage.py classify_tickets.")
    return lines
