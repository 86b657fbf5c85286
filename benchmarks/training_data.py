"""Measure the time and memory of reading a large ticket table for training.

Run: .venv/bin/python benchmarks/training_data.py [--rows 2000 20000] [--json]

A SQLite table of labelled tickets of 1,000 characters is read, cleaned, grouped and split, and
every row of the splits is read once more, as an export or a tokeniser does. Each size runs in a
process of its own. The table has its peak memory, and the memory before the table was read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BATCH = 5000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill or arguments.measure:
        import django

        django.setup()
        if arguments.fill:
            _fill(arguments.fill)
        else:
            print(json.dumps(_measure()))
        return 0
    figures = [_run(rows) for rows in arguments.rows]
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return 0
    print(f"{'tickets':>9}{'seconds':>9}{'before':>9}{'peak MiB':>10}")
    for row in figures:
        print(
            f"{row['rows']:>9}{row['seconds']:>9.0f}{row['before_mib']:>9.0f}"
            f"{row['peak_mib']:>10.0f}"
        )
    first, last = figures[0], figures[-1]
    if last["rows"] > first["rows"]:
        grown = (last["peak_mib"] - first["peak_mib"]) * 2**20
        print(f"{grown / (last['rows'] - first['rows']):.0f} bytes for each ticket more")
    return 0


def _run(rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "helpdesk.settings",
            "HELPDESK_DATABASE_NAME": f"{folder}/bench.sqlite3",
            "HELPDESK_LOG_LEVEL": "WARNING",
            # With DEBUG, Django keeps the text of its last 9,000 queries.
            "HELPDESK_DEBUG": "0",
            "HELPDESK_SECRET_KEY": "benchmark",
        }
        subprocess.run([sys.executable, __file__, f"--fill={rows}"], env=environment, check=True)
        measured = subprocess.check_output([sys.executable, __file__, "--measure"], env=environment)
    figures: dict[str, float] = json.loads(measured)
    return figures


def _fill(rows: int) -> None:
    from django.core.management import call_command

    from helpdesk.models import Ticket

    call_command("migrate", verbosity=0)
    draw = random.Random(1)  # noqa: S311
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 5) for rank in range(len(words))))
    for start in range(0, rows, BATCH):
        Ticket.objects.bulk_create(
            Ticket(
                subject=f"Ticket {number}",
                description=" ".join(draw.choices(words, cum_weights=weights, k=125)),
                priority=number % 3,
            )
            for number in range(start, min(start + BATCH, rows))
        )


def _measure() -> dict[str, float]:
    from helpdesk.models import Ticket
    from ticket_priority.sources.registry import get_source
    from ticket_priority.training.dataset import build

    before = _peak_mib()
    started = time.perf_counter()
    dataset = build([get_source(Ticket)])
    for split in (dataset.train, dataset.validation, dataset.test):
        for _row in split:
            pass
    return {
        "rows": len(dataset),
        "seconds": time.perf_counter() - started,
        "before_mib": before,
        "peak_mib": _peak_mib(),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
