"""Measure what automatic priority adds to opening a ticket in real helpdesks, on each route.

Run: .venv/bin/python benchmarks/host_routes.py [HOST ...] [--rounds 60] [--json]

The hosts are those of tests/hosts, unmodified, each in its own environment with a SQLite file.
Every round opens a ticket by each route with the plugin muted, in async and in sync mode, in turn;
the figures are medians in milliseconds of the whole request, message or call. The model is a tiny
one; its forward pass is measured too, and what sync adds is compared with it. No worker runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOSTS_FOLDER = ROOT / "tests" / "hosts"
TARGET_MS = 5.0
MODES = ("async", "sync")
WAYS = ("muted", *MODES)
WARM_UP = 6
TEXT = "hello team the system is down again since monday, outage and fire, please help. " * 2


def main() -> int:
    sys.path.insert(0, str(HOSTS_FOLDER))
    import run

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"default: {', '.join(run.HOSTS)}")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    environments = run.Environments(run.ENVIRONMENTS)
    passed = True
    for host in arguments.hosts or run.HOSTS:
        python = environments.interpreter(host)
        answer = subprocess.run(
            [python, __file__, "--inside", "--rounds", str(arguments.rounds)],
            cwd=HOSTS_FOLDER / host,
            env=environments.variables(),
            check=True,
            stdout=subprocess.PIPE,
        )
        figures = json.loads(answer.stdout.splitlines()[-1])
        passed &= _report(host, figures, as_json=arguments.json)
    return int(not passed)


def inside(rounds: int) -> None:
    """Measure the host whose folder this process stands in; print the figures as JSON."""
    sys.path[:0] = [str(Path.cwd()), str(HOSTS_FOLDER)]
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import django

    django.setup()
    from django.conf import settings
    from django.db import connection
    from django.test.runner import DiscoverRunner
    from toy_model import activate_toy

    with tempfile.TemporaryDirectory() as folder:
        # A file, as in production; the app registry may have opened the settings' own already.
        database = settings.DATABASES["default"]
        database["NAME"] = database["TEST"]["NAME"] = f"{folder}/host.sqlite3"
        connection.close()
        runner = DiscoverRunner(verbosity=0, interactive=False)
        runner.setup_test_environment()
        databases = runner.setup_databases()
        try:
            activate_toy()
            print(json.dumps(_measure(rounds, Path(folder))))
        finally:
            runner.teardown_databases(databases)


def _measure(rounds: int, folder: Path) -> dict[str, Any]:
    from django.conf import settings
    from django.core import mail
    from django.test.utils import override_settings
    from measured_routes import open_ticket_by

    import ticket_priority

    routes = open_ticket_by(folder)
    times: dict[str, dict[str, list[float]]] = {
        route: {way: [] for way in WAYS} for route in routes
    }

    def manner(way: str) -> AbstractContextManager[Any]:
        if way == "muted":
            return ticket_priority.muted()
        return override_settings(TICKET_PRIORITY={**settings.TICKET_PRIORITY, "MODE": way})

    def timed(route: str) -> float:
        mail.outbox.clear()
        started = time.perf_counter()
        routes[route](TEXT)
        return 1000 * (time.perf_counter() - started)

    for turn in range(rounds + WARM_UP):
        for route in routes:
            # Some pages grow with the table, so each way is first in turn.
            for offset in range(len(WAYS)):
                way = WAYS[(turn + offset) % len(WAYS)]
                with manner(way):
                    milliseconds = timed(route)
                # The first turns warm caches up.
                if turn >= WARM_UP:
                    times[route][way].append(milliseconds)
    medians = {
        route: {way: statistics.median(values) for way, values in ways.items()}
        for route, ways in times.items()
    }
    return {"forward_pass_ms": _forward_pass(rounds), "median_ms": medians}


def _forward_pass(rounds: int) -> float:
    import ticket_priority

    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        ticket_priority.classify([TEXT])
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def _report(host: str, figures: dict[str, Any], *, as_json: bool) -> bool:
    forward = figures["forward_pass_ms"]
    limits = {"async": TARGET_MS, "sync": TARGET_MS + forward}
    added = {
        route: {mode: ways[mode] - ways["muted"] for mode in MODES}
        for route, ways in figures["median_ms"].items()
    }
    passed = all(ways[mode] <= limits[mode] for ways in added.values() for mode in MODES)
    if as_json:
        print(json.dumps({"host": host, **figures, "added_ms": added, "passed": passed}))
        return passed
    print(f"{host}: median ms of opening a ticket; a forward pass alone takes {forward:.1f}")
    print(f"  {'route':<16}{'muted':>9}{'async':>9}{'sync':>9}{'async +':>10}{'sync +':>9}")
    for route, ways in figures["median_ms"].items():
        cells = "".join(f"{ways[way]:9.1f}" for way in WAYS)
        print(f"  {route:<16}{cells}{added[route]['async']:+10.1f}{added[route]['sync']:+9.1f}")
    verdict = "PASS" if passed else "FAIL"
    print(f"{verdict}: at most {limits['async']:.1f} ms more (async), {limits['sync']:.1f} (sync)")
    return passed


if __name__ == "__main__":
    if "--inside" in sys.argv:
        inside(int(sys.argv[sys.argv.index("--rounds") + 1]))
    else:
        sys.exit(main())
