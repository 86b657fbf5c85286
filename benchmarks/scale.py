"""How long each page takes at 200,000 tickets, and how many queries what touches many of them.

Run: .venv/bin/python benchmarks/scale.py [--database postgresql] [--tickets 200000] [--json]

Fills a database of its own with tickets, two predictions about each and a decision about every
tenth, and prints the median milliseconds and the queries of the admin's list with each filter, of
its facets and of the API's lists, for a user who sees nine tenths of the tickets of one source and
some of another. Then it selects all tickets and classifies them, deletes 5,000, and saves and
activates without a queue while tickets wait. Exits 1 where a page takes over a second (two on
MariaDB).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.services import run_on_server  # noqa: E402

USERS: Final = {"sqlite": "", "postgresql": "postgres", "mariadb": "root"}
NAME: Final = "ticket_priority_scale"
MOST_MS: Final = {"sqlite": 2000, "postgresql": 1000, "mariadb": 2000}
AT_ONCE: Final = 5000
TICKETS: Final = "/admin/helpdesk/ticket/"
PREDICTIONS: Final = "/admin/ticket_priority/prediction/"
API: Final = "/api/predictions/"
FILTERS: Final = {
    "ticket_priority": ("high", "medium", "low", "unset"),
    "ticket_priority_state": ("applied", "suggested", "failed", "none"),
    "ticket_priority_confidence": ("low", "low-unreviewed"),
}
PAGES: Final = (
    TICKETS,
    *(f"{TICKETS}?{name}={value}" for name, values in FILTERS.items() for value in values),
    f"{TICKETS}?_facets=True",
    PREDICTIONS,
    f"{PREDICTIONS}?state__exact=suggested",
    API,
    f"{API}?page=last",
    f"{API}?ordering=confidence",
    f"{API}?state=suggested&max_confidence=0.4",
    f"{API}?object_id=17",
    "/api/overrides/",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", choices=USERS, default="postgresql")
    parser.add_argument("--tickets", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _database(options.database, folder):
        os.environ.update(
            DJANGO_SETTINGS_MODULE="helpdesk.settings",
            HELPDESK_DEBUG="1",
            HELPDESK_LOG_LEVEL="ERROR",
            HELPDESK_DATABASE=options.database,
            HELPDESK_DATABASE_USER=USERS[options.database],
            HELPDESK_ARTIFACT_ROOT=f"{folder}/models",
        )
        return _run(options)


@contextmanager
def _database(kind: str, folder: str) -> Iterator[None]:
    os.environ["HELPDESK_DATABASE_NAME"] = NAME if USERS[kind] else f"{folder}/scale.sqlite3"
    if not USERS[kind]:
        yield
        return
    run_on_server(kind, f"DROP DATABASE IF EXISTS {NAME}")
    run_on_server(kind, f"CREATE DATABASE {NAME}")
    try:
        yield
    finally:
        forced = " WITH (FORCE)" if kind == "postgresql" else ""
        run_on_server(kind, f"DROP DATABASE {NAME}{forced}")


def _run(options: argparse.Namespace) -> int:
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.test.utils import override_settings

    settings.ALLOWED_HOSTS = ["*"]
    call_command("migrate", verbosity=0)
    call_command("activate_priority_model", starter="linear", verbosity=0)
    begun = time.perf_counter()
    _fill(options.tickets)
    filled = time.perf_counter() - begun
    pages = {url: _page(url, options.rounds) for url in PAGES}
    # Without workers, so that what would be a message is done in the request.
    inline = {"BACKEND": "ticket_priority.queues.inline.InlineQueue"}
    with override_settings(TICKET_PRIORITY={**settings.TICKET_PRIORITY, "QUEUE": inline}):
        works = {name: _measured(work) for name, work in _works().items()}
    slow = [url for url, (took, _number) in pages.items() if took > MOST_MS[options.database]]
    if options.json:
        print(json.dumps({"pages": pages, "works": works, "slow": slow}))
        return int(bool(slow))
    print(f"{options.database}, {options.tickets:,} tickets, filled in {filled:.0f} s\n")
    print("| page | ms | queries |\n| --- | --- | --- |")
    for name, (took, number) in (pages | works).items():
        print(f"| `{name}` | {took:,.0f} | {number:,} |")
    print("\nFAIL: " + ", ".join(slow) if slow else "\nPASS")
    return int(bool(slow))


def _fill(number: int) -> None:
    from django.contrib.auth.models import Group, User
    from django.db import connection
    from django.utils import timezone

    from helpdesk.models import Queue, Ticket
    from ticket_priority.models import ModelVersion, Override, Prediction
    from ticket_priority.models.rows import content_type_of
    from ticket_priority.sources.registry import register

    State = Prediction.State
    agent = User.objects.create_user("agent")
    agent.groups.add(Group.objects.get(name="Agents"))
    User.objects.create_superuser("boss")
    register(
        Ticket,
        text_fields=("subject", "description"),
        visible_to=lambda rows, user: rows.exclude(queue__slug="q0"),
    )
    register(
        User,
        text_fields="username",
        priority_field="id",
        visible_to=lambda rows, user: rows.filter(is_staff=True),
    )
    queues = [Queue.objects.create(name=f"Q{place}", slug=f"q{place}") for place in range(10)]
    version, kind, now = ModelVersion.objects.get(), content_type_of(Ticket), timezone.now()
    for start in range(0, number, AT_ONCE):
        places = range(start, min(start + AT_ONCE, number))
        tickets = Ticket.objects.bulk_create(
            Ticket(
                subject=f"Printer {place} is broken",
                description="It says an error since this morning and nobody can print. " * 3,
                queue=queues[place % 10],
                priority=None if place % 40 == 0 else place % 3,
            )
            for place in places
        )
        keys = list(Ticket.objects.order_by("-pk").values_list("pk", flat=True)[: len(tickets)])
        Prediction.objects.bulk_create(
            Prediction(
                content_type=kind,
                object_id=str(key),
                priority=key % 3,
                confidence=0.35 + key % 60 / 100,
                prob_low=0.2,
                prob_medium=0.2,
                prob_high=0.6,
                text_hash=f"{key:064}",
                model_version=version,
                mode="audit" if key % 20 == 0 else "sync",
                state=State.SUGGESTED if key % 20 == 0 or (key + turn) % 7 == 0 else State.APPLIED,
                reason="audit" if key % 20 == 0 else "ok",
                decided_at=now,
                is_newest=turn == 1,
            )
            for turn in range(2)
            for key in keys
            if key % 200
        )
        Override.objects.bulk_create(
            Override(content_type=kind, object_id=str(key), to_priority=key % 3, via="admin")
            for key in keys
            if key % 10 == 3
        )
    with connection.cursor() as cursor:
        tables = ", ".join(model._meta.db_table for model in (Ticket, Prediction, Override))
        words = {"postgresql": "VACUUM ANALYZE", "mysql": "ANALYZE TABLE", "sqlite": "ANALYZE"}
        sql = words[connection.vendor]
        cursor.execute(sql if connection.vendor == "sqlite" else f"{sql} {tables}")


def _page(url: str, rounds: int) -> tuple[float, int]:
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.get(username="agent" if url.startswith("/api") else "boss"))
    assert client.get(url).status_code == 200, url
    runs = [_measured(lambda: client.get(url)) for _round in range(rounds)]
    return statistics.median(took for took, _number in runs), runs[0][1]


def _works() -> dict[str, Callable[[], Any]]:
    from django.contrib.auth.models import User
    from django.test import Client

    from helpdesk.models import Ticket
    from ticket_priority import muted
    from ticket_priority.models import ModelVersion, Prediction
    from ticket_priority.models.rows import content_type_of

    boss = Client()
    boss.force_login(User.objects.get(username="boss"))
    chosen = {"_selected_action": [Ticket.objects.first().pk], "select_across": "1"}

    def act(action: str) -> Any:
        return boss.post(TICKETS, {**chosen, "action": action, "index": "0"})

    def delete() -> Any:
        return Ticket.objects.filter(pk__in=keys).delete()

    def wait(number: int) -> None:
        with muted():
            made = Ticket.objects.bulk_create(Ticket(subject=f"W{i}") for i in range(number))
        last = Ticket.objects.order_by("-pk").values_list("pk", flat=True)[: len(made)]
        Prediction.objects.bulk_create(
            Prediction(
                content_type=content_type_of(Ticket),
                object_id=str(key),
                mode="sync",
                state=Prediction.State.PENDING,
                reason=Prediction.Reason.MODEL_ERROR,
            )
            for key in last
        )

    keys = list(Ticket.objects.values_list("pk", flat=True)[:5000])
    wait(5000)
    return {
        "an activation, while 5,000 wait": lambda: ModelVersion.objects.get().activate(),
        "a save, while 5,000 wait": lambda: Ticket.objects.create(subject="All tills are down"),
        "the action Classify on all": lambda: act("classify_tickets"),
        "the action Set priority to High on all": lambda: act("set_priority_high"),
        "queryset.delete() of 5,000": delete,
    }


def _measured(work: Callable[[], Any]) -> tuple[float, int]:
    from django.db import connection

    number = 0

    def count(execute: Callable[..., Any], *args: Any) -> Any:
        nonlocal number
        number += 1
        return execute(*args)

    begun = time.perf_counter()
    with connection.execute_wrapper(count):
        work()
    return 1000 * (time.perf_counter() - begun), number


if __name__ == "__main__":
    sys.exit(main())
