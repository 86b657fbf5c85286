"""Open many tickets at once while the model raises, hangs, and its workers are killed.

    python benchmarks/outages.py [--tickets 10000] [--clients 8] [--database postgresql]
                                 [--mode async] [--json FILE]

Two gunicorns serve the demo helpdesk from one database: one with the plugin, one without. Each
client opens tickets on both in turn, through the form, as a browser does. Every few seconds, the
model of the plugin's host raises, hangs, or kills its worker (SIGKILL, as a kernel does without
memory; not in the mode sync, where the worker is the web process). In the end it answers again, and
the script waits for the pending tickets. Exits 1 when a ticket is
lost, an answer is an error, a ticket stays pending or is decided twice, or the 99th percentile is
more than twice that of the host without the plugin (in the mode sync: above it by more than the
deadline and half of that again).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.services import run_on_server  # noqa: E402
from ticket_priority.ml.types import Classification  # noqa: E402

USERS: Final = {"sqlite": "", "postgresql": "postgres", "mariadb": "root"}
DATABASE_NAME: Final = "ticket_priority_outages"
PORTS: Final = {"plugin": 8971, "plain": 8972}
FAULTS: Final = ("raise", "hang", "kill")
FAULT_SECONDS: Final = (1.0, 3.0)
HANG_SECONDS: Final = 60.0
MOST_RATIO: Final = 2.0
MOST_WAIT_MS: Final = 450.0
RECOVERY_SECONDS: Final = 600.0


class UnreliableClassifier:
    """Answers from a hash of the text, or has the fault that the file OUTAGES_FAULT names."""

    def __init__(self, directory: Path, **options: object) -> None:
        pass

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        fault = Path(os.environ["OUTAGES_FAULT"])
        if (now := fault.read_text()) == "raise":
            raise RuntimeError("the model fails")
        if now == "kill":
            fault.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        if now == "hang":
            ends = time.monotonic() + HANG_SECONDS
            while time.monotonic() < ends and fault.read_text() == "hang":
                time.sleep(0.05)
        return [_answer(text) for text in texts]


def _answer(text: str) -> Classification:
    weights = [random.Random(f"{text}{place}").random() for place in range(3)]  # noqa: S311
    return Classification(tuple(weight / sum(weights) for weight in weights))


def muted_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Serve requests as a host without the plugin would."""
    from ticket_priority import muted

    def respond(request: Any) -> Any:
        with muted():
            return get_response(request)

    return respond


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tickets", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--database", choices=USERS, default="postgresql")
    parser.add_argument("--mode", choices=("async", "sync"), default="async")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        host = Host(Path(folder), options.database, options.mode)
        stack.enter_context(host.database())
        host.prepare()
        for name in PORTS:
            stack.enter_context(host.web(name))
        stack.enter_context(host.workers())
        figures = _run(host, options)
    return _report(figures, options.json)


class Host:
    """The demo helpdesk, twice, on a database of its own."""

    def __init__(self, folder: Path, database: str, mode: str) -> None:
        self.folder = folder
        self.kind = database
        self.fault = folder / "fault"
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "benchmarks.outage_settings",
            "PYTHONPATH": str(ROOT),
            "HELPDESK_DATABASE": database,
            "HELPDESK_DATABASE_NAME": DATABASE_NAME
            if USERS[database]
            else str(folder / "host.sqlite3"),
            "HELPDESK_DATABASE_USER": USERS[database],
            "HELPDESK_MODE": mode,
            "HELPDESK_LOG_LEVEL": "ERROR",
            "HELPDESK_ARTIFACT_ROOT": str(folder / "models"),
            "OUTAGES_FAULT": str(self.fault),
        }
        self.set_fault("")

    def set_fault(self, fault: str) -> None:
        """Set the model's fault. The file is replaced at once, because others read it."""
        new = self.fault.with_suffix(".new")
        new.write_text(fault)
        new.replace(self.fault)

    @contextmanager
    def database(self) -> Iterator[None]:
        if not USERS[self.kind]:
            yield
            return
        run_on_server(self.kind, f"DROP DATABASE IF EXISTS {DATABASE_NAME}")
        run_on_server(self.kind, f"CREATE DATABASE {DATABASE_NAME}")
        try:
            yield
        finally:
            forced = " WITH (FORCE)" if self.kind == "postgresql" else ""
            run_on_server(self.kind, f"DROP DATABASE {DATABASE_NAME}{forced}")

    def prepare(self) -> None:
        self.manage("migrate", "--verbosity=0")
        self.manage("activate_priority_model", "--starter=linear")
        self.manage(
            "shell",
            "--verbosity=0",
            "--command",
            "from helpdesk.models import Queue; Queue.objects.create(name='Desk', slug='desk')",
        )

    def manage(self, *words: str) -> str:
        command = [sys.executable, "manage.py", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def web(self, name: str) -> Any:
        command = [sys.executable, "-m", "gunicorn", "helpdesk.wsgi", "--workers", "2"]
        command += ["--threads", "4", "--bind", f"127.0.0.1:{PORTS[name]}", "--log-level", "error"]
        return self._running(name, command, OUTAGES_PLUGIN="0" if name == "plain" else "1")

    def workers(self) -> Any:
        return self._running("workers", [sys.executable, "manage.py", "qcluster"])

    @contextmanager
    def _running(self, name: str, command: list[str], **environment: str) -> Iterator[None]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | environment,
                start_new_session=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if name in PORTS:
            _wait_for_port(PORTS[name])
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Clients:
    """People who open tickets on both hosts in turn, and how long each save took."""

    def __init__(self, tickets: int, clients: int) -> None:
        self.left = tickets
        self.clients = clients
        self.lock = threading.Lock()
        self.milliseconds: dict[str, list[float]] = {name: [] for name in PORTS}
        self.errors: Counter[str] = Counter()

    def open_tickets(self) -> None:
        threads = [threading.Thread(target=self._open_some) for _ in range(self.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _open_some(self) -> None:
        browsers = {name: Browser(port) for name, port in PORTS.items()}
        while (number := self._next()) is not None:
            for name in random.sample(list(PORTS), 2):
                error, milliseconds = browsers[name].open_ticket(number)
                with self.lock:
                    if error:
                        self.errors[f"{name}: {error}"] += 1
                    else:
                        self.milliseconds[name].append(milliseconds)

    def _next(self) -> int | None:
        with self.lock:
            self.left -= 1
            return self.left if self.left >= 0 else None


class Browser:
    """Keeps a connection and a cookie, and fills in the form."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", "/")
        answer = self.connection.getresponse()
        page = answer.read().decode()
        self.cookie = (answer.headers["Set-Cookie"] or "").partition(";")[0]
        self.token = _found(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        self.queue = _found(r'<option value="(\d+)"', page)

    def open_ticket(self, number: int) -> tuple[str, float]:
        """Return what went wrong, or nothing, and the milliseconds it took."""
        form = {
            "csrfmiddlewaretoken": self.token,
            "requester": f"customer{number}@example.com",
            "subject": f"Case {number}",
            "description": f"Since this morning number {number} no longer starts. Please help.",
            "queue": self.queue,
            "language": "en",
        }
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": self.cookie,
        }
        started = time.perf_counter()
        try:
            self.connection.request("POST", "/", urlencode(form), headers)
            answer = self.connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            return type(error).__name__, 0.0
        milliseconds = 1000 * (time.perf_counter() - started)
        return ("" if answer.status == 302 else f"status {answer.status}"), milliseconds


def _run(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    clients = Clients(options.tickets, options.clients)
    done = threading.Event()
    faults: Counter[str] = Counter()
    kinds = FAULTS if options.mode == "async" else FAULTS[:-1]
    faulty = threading.Thread(target=_make_faults, args=(host, done, faults, kinds))
    faulty.start()
    started = time.monotonic()
    clients.open_tickets()
    seconds = time.monotonic() - started
    done.set()
    faulty.join()
    host.set_fault("")
    recovered = _wait_until_decided(host)
    quantiles = {
        name: statistics.quantiles(values, n=100) for name, values in clients.milliseconds.items()
    }
    return {
        "database": options.database,
        "mode": options.mode,
        "clients": options.clients,
        "tickets": options.tickets,
        "seconds": round(seconds, 1),
        "faults": dict(faults),
        "errors": dict(clients.errors),
        "recovery_seconds": recovered,
        **_counts(host),
        "milliseconds": {
            name: {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)}
            for name, cuts in quantiles.items()
        },
        "p99_ratio": round(quantiles["plugin"][98] / quantiles["plain"][98], 2),
    }


def _make_faults(
    host: Host, done: threading.Event, faults: Counter[str], kinds: Sequence[str]
) -> None:
    turn = 0
    while not done.wait(random.uniform(*FAULT_SECONDS)):  # noqa: S311
        fault = kinds[turn % len(kinds)]
        turn += 1
        faults[fault] += 1
        host.set_fault(fault)
        done.wait(random.uniform(*FAULT_SECONDS))  # noqa: S311
        host.set_fault("")


def _counts(host: Host) -> dict[str, Any]:
    code = """
import json
from collections import Counter
from django.db.models import Count
from helpdesk.models import Ticket
from ticket_priority.models import Prediction
rows = Prediction.objects.values("object_id").annotate(n=Count("pk"))
print(json.dumps({
    "stored": Ticket.objects.count(),
    "states": Counter(Prediction.objects.values_list("state", flat=True)),
    "with_priority": Ticket.objects.exclude(priority=None).count(),
    "decided_twice": rows.filter(n__gt=1).count(),
}))
"""
    counts: dict[str, Any] = json.loads(host.manage("shell", "--verbosity=0", "--command", code))
    return counts


def _wait_until_decided(host: Host) -> float | None:
    """Return after how many seconds nothing was pending any more; None where something stays."""
    started = time.monotonic()
    while time.monotonic() - started < RECOVERY_SECONDS:
        if not _counts(host)["states"].get("pending"):
            return round(time.monotonic() - started, 1)
        time.sleep(2)
    return None


def _report(figures: dict[str, Any], file: Path | None) -> int:
    text = json.dumps(figures, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n", encoding="utf-8")
    tickets = figures["tickets"]
    targets = {
        "no ticket is lost": figures["stored"] == 2 * tickets,
        "no answer is an error": not figures["errors"],
        "no ticket stays pending": figures["recovery_seconds"] is not None,
        "each has its priority": figures["with_priority"] == tickets,
        "none is decided twice": figures["decided_twice"] == 0
        and figures["states"] == {"applied": tickets},
        **_speed_target(figures),
    }
    for target, is_met in targets.items():
        print(f"{'PASS' if is_met else 'FAIL'}  {target}")
    return 0 if all(targets.values()) else 1


def _speed_target(figures: dict[str, Any]) -> dict[str, bool]:
    plugin, plain = (figures["milliseconds"][name]["p99"] for name in ("plugin", "plain"))
    if figures["mode"] == "async":
        says = f"the 99th percentile is at most {MOST_RATIO:g} times the plain host's"
        return {says: plugin <= MOST_RATIO * plain}
    says = f"the 99th percentile is at most {MOST_WAIT_MS:g} ms above the plain host's"
    return {says: plugin <= plain + MOST_WAIT_MS}


def _found(pattern: str, page: str) -> str:
    match = re.search(pattern, page)
    if match is None:
        raise SystemExit(f"The form has no {pattern}")
    return match[1]


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            http.client.HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/")
            return
        time.sleep(0.2)
    raise SystemExit(f"Nothing listens on port {port}.")


if __name__ == "__main__":
    sys.exit(main())
