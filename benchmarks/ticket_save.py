"""What automatic priority adds to saving a ticket: muted, async and sync side by side.

Run: .venv/bin/python benchmarks/ticket_save.py [--database postgresql] [--broker redis] [--json]

Every round saves one ticket each way, in turn, with the demo's settings; the figures are medians
in milliseconds of the whole transaction, commit and queue message included. The model is a tiny
one, so the sync row shows what the plugin costs around a model; `inference.py` shows what a real
model costs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
USERS = {"sqlite": "", "postgresql": "postgres", "mariadb": "root"}
TARGET_ASYNC_MS = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", choices=USERS, default="sqlite")
    parser.add_argument("--broker", choices=("orm", "redis"), default="orm")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(
            DJANGO_SETTINGS_MODULE="helpdesk.settings",
            HELPDESK_DEBUG="1",
            HELPDESK_LOG_LEVEL="WARNING",
            HELPDESK_DATABASE=arguments.database,
            HELPDESK_BROKER=arguments.broker,
            HELPDESK_REDIS_URL="redis://127.0.0.1:6379/8",
            HELPDESK_DATABASE_USER=USERS[arguments.database],
            HELPDESK_ARTIFACT_ROOT=f"{folder}/models",
        )
        if arguments.database == "sqlite":
            os.environ["HELPDESK_DATABASE_NAME"] = f"{folder}/bench.sqlite3"
        return _run(Path(folder), arguments)


def _run(folder: Path, arguments: argparse.Namespace) -> int:
    import django

    django.setup()
    from django.conf import settings
    from django.test.runner import DiscoverRunner
    from django.test.utils import override_settings

    settings.DEBUG = False
    if arguments.database == "sqlite":
        # A file, as in production; the test runner would keep the database in memory.
        settings.DATABASES["default"]["TEST"]["NAME"] = f"{folder}/bench.sqlite3"
    runner = DiscoverRunner(verbosity=0, interactive=False)
    databases = runner.setup_databases()
    try:
        _activate_tiny_model(folder)
        figures = _measure(arguments.rounds, override_settings)
    finally:
        runner.teardown_databases(databases)
        if arguments.broker == "redis":
            import redis

            redis.Redis(db=8).flushdb()
    return _report(figures, arguments)


def _activate_tiny_model(folder: Path) -> None:
    from tests.ml.conftest import toy_rows, write_tiny_encoder
    from ticket_priority.ml.artifacts.store import publish
    from ticket_priority.ml.trainers.pipeline import fit
    from ticket_priority.ml.types import TrainingConfig
    from ticket_priority.models import ModelVersion

    encoder = folder / "encoder"
    encoder.mkdir()
    config = TrainingConfig(
        model_name=str(write_tiny_encoder(encoder)),
        output_dir=str(folder / "outputs"),
        max_epochs=1,
        max_length=48,
        accelerator="cpu",
    )
    rows = toy_rows(60, 1)
    result = fit(rows, rows, rows, config, show_progress_bar=False)
    published = publish(result.artifact_dir, folder / "models", "tiny")
    ModelVersion.objects.create(
        name="tiny", kind=published.kind, directory="tiny", digest=published.digest
    ).activate()


def _measure(rounds: int, override_settings: Any) -> dict[str, list[float]]:
    import ticket_priority

    def muted() -> None:
        with ticket_priority.muted():
            _save_ticket()

    def in_mode(mode: str) -> Callable[[], None]:
        changed = {**_plugin_settings(), "MODE": mode}

        def save() -> None:
            with override_settings(TICKET_PRIORITY=changed):
                started = time.perf_counter()
                _save_ticket()
                times[mode].append(1000 * (time.perf_counter() - started))

        return save

    times: dict[str, list[float]] = {"muted": [], "async": [], "sync": []}
    ways = {"async": in_mode("async"), "sync": in_mode("sync")}
    for save in (muted, *ways.values()):
        for _ in range(20):
            save()
    for name in ways:
        times[name].clear()
    for _ in range(rounds):
        started = time.perf_counter()
        muted()
        times["muted"].append(1000 * (time.perf_counter() - started))
        for save in ways.values():
            save()
    return times


def _plugin_settings() -> dict[str, Any]:
    from django.conf import settings

    return dict(settings.TICKET_PRIORITY)


def _save_ticket() -> None:
    from django.db import transaction

    from helpdesk.models import Ticket

    with transaction.atomic():
        Ticket.objects.create(
            subject="outage since monday",
            description="hello team the system is down again please " * 4,
            requester="a@b.example",
            language="en",
        )


def _report(times: dict[str, list[float]], arguments: argparse.Namespace) -> int:
    medians = {name: statistics.median(values) for name, values in times.items()}
    added = {name: medians[name] - medians["muted"] for name in ("async", "sync")}
    passed = added["async"] <= TARGET_ASYNC_MS
    if arguments.json:
        print(json.dumps({"median_ms": medians, "added_ms": added, "passed": passed}))
        return int(not passed)
    where = f"{arguments.database}, {arguments.broker} broker, {arguments.rounds} rounds"
    print(f"{where}, median ms of a ticket save")
    for name, value in medians.items():
        print(f"  {name:<6} {value:7.2f}   +{value - medians['muted']:.2f}")
    verdict = "PASS" if passed else "FAIL"
    print(f"{verdict}: async adds {added['async']:.2f} ms (at most {TARGET_ASYNC_MS} ms)")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
