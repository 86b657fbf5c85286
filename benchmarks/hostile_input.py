"""Time what hostile texts add to the save of a ticket, compared with an ordinary one.

    python benchmarks/hostile_input.py [--json FILE] [--rounds N]

Each text is both the subject and the description of a ticket. `normalise`, `TicketSource.text_of`
and the linear starter are timed. All texts run in one process, in turn in every round; figures are
medians of CPU time, so that other processes matter less. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "helpdesk.settings")
django.setup()

from helpdesk.demo import read_demo_tickets  # noqa: E402
from helpdesk.models import Ticket  # noqa: E402
from tests.support.hostile import HOSTILE_TEXTS  # noqa: E402
from ticket_priority.ml.serving.linear import LinearClassifier  # noqa: E402
from ticket_priority.ml.text.normalisation import MAX_CHARACTERS, normalise  # noqa: E402
from ticket_priority.sources.registry import get_source  # noqa: E402
from ticket_priority.starter.install import STARTER_DIRECTORY  # noqa: E402

ORDINARY = "an ordinary ticket"
LONG = "an ordinary text of 10,000 characters"
ROUNDS = 5
MOST_MILLISECONDS = 300.0
STEPS = ("normalise", "text_of", "starter")


def texts() -> dict[str, Callable[[], str]]:
    tickets = list(read_demo_tickets())
    longest = max((ticket.description for ticket in tickets), key=len)
    every = "\n".join(ticket.description for ticket in tickets)[:MAX_CHARACTERS]
    return {ORDINARY: lambda: longest, LONG: lambda: every, **HOSTILE_TEXTS}


def milliseconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1000


def measure(rounds: int) -> list[dict[str, Any]]:
    """Return a row a text: its length, what is left of it, and the median of each step."""
    source, starter = get_source(Ticket), LinearClassifier(STARTER_DIRECTORY)
    rows: dict[str, dict[str, Any]] = {}
    for round_number in range(rounds + 1):
        for name, make in texts().items():
            text = make()
            ticket = Ticket(subject=text, description=text)
            left = source.text_of(ticket)
            row = rows.setdefault(name, {"text": name, "characters": len(text), "left": len(left)})
            times = (
                milliseconds(lambda text=text: normalise(text)),
                milliseconds(lambda ticket=ticket: source.text_of(ticket)),
                milliseconds(lambda left=left: starter.classify([left])),
            )
            # The first round warms up.
            if round_number:
                for step, took in zip(STEPS, times, strict=True):
                    row.setdefault(step, []).append(took)
    return [row | {step: statistics.median(row[step]) for step in STEPS} for row in rows.values()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    rows = measure(options.rounds)
    print(f"{platform.machine()}, Python {platform.python_version()}")
    print(f"{'text':<40}{'characters':>12}{'left':>8}" + "".join(f"{s:>12}" for s in STEPS))
    for row in rows:
        print(
            f"{row['text']:<40}{row['characters']:>12,}{row['left']:>8,}"
            + "".join(f"{row[step]:>9.2f} ms" for step in STEPS)
        )
    slowest = max(rows, key=lambda row: row["text_of"])
    print(
        f"\nSlowest text_of: {slowest['text_of']:.0f} ms ({slowest['text']}); at most "
        f"{MOST_MILLISECONDS:.0f}"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return 0 if slowest["text_of"] <= MOST_MILLISECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
