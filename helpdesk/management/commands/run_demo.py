from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any, Final

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from helpdesk.management.commands.load_demo_tickets import DEMO_PASSWORD
from ticket_priority.models import ModelVersion

START_SECONDS: Final = 60


class Command(BaseCommand):
    """Run what `make demo` runs once the packages are installed."""

    help = (
        "Prepare the demo (migrate, load tickets, train a model if none is active, classify what "
        "is undecided), then run the web server and the worker until Ctrl-C."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--prepare-only", action="store_true", help="do not start servers")

    def handle(self, *args: Any, **options: Any) -> None:
        port = options["port"]
        if not options["prepare_only"]:
            _check_port(port)
        self._prepare()
        if not options["prepare_only"]:
            self._serve(port)

    def _prepare(self) -> None:
        self._say("Migrating the database")
        call_command("migrate", verbosity=0)
        self._say("Loading the demo tickets")
        call_command("load_demo_tickets", verbosity=0)
        if ModelVersion.objects.active() is None:
            self._say("Training a model on the labelled tickets (two or three minutes, once)")
            call_command("train_priority_model", stdout=self.stdout)
        self._say("Classifying the open tickets")
        call_command("classify_tickets", stdout=self.stdout)

    def _serve(self, port: int) -> None:
        self._say("Starting the worker and the web server")
        commands = (["qcluster"], ["runserver", f"127.0.0.1:{port}", "--noreload"])
        processes = [
            subprocess.Popen(  # noqa: S603 - our own interpreter and our own words
                [sys.executable, str(settings.BASE_DIR / "manage.py"), *command],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            for command in commands
        ]
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            _wait_until_it_answers(port, processes)
            self._say_where(port)
            while all(process.poll() is None for process in processes):
                time.sleep(0.5)
            raise CommandError("The web server or the worker has stopped; see above.")
        except KeyboardInterrupt:
            self._say("Stopping")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(timeout=20)
                except (subprocess.TimeoutExpired, KeyboardInterrupt):
                    process.kill()

    def _say(self, line: str) -> None:
        self.stdout.write(f"== {line}")
        self.stdout.flush()

    def _say_where(self, port: int) -> None:
        site = f"http://127.0.0.1:{port}"
        self.stdout.write(
            f"\n  Open a ticket    {site}/\n"
            f"  Agents' queue    {site}/tickets/\n"
            f"  Admin            {site}/admin/\n"
            f"  API              {site}/api/schema/\n"
            f"  Login            lead / {DEMO_PASSWORD}\n\n"
            "  Train again, in another terminal: "
            ".venv/bin/python manage.py train_priority_model\n"
            "  Ctrl-C stops the demo.\n"
        )
        self.stdout.flush()


def _interrupt(*args: object) -> None:
    raise KeyboardInterrupt


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CommandError(
                f"Port {port} cannot be used ({error.strerror}). Choose another: "
                "make demo PORT=8001"
            ) from error


def _wait_until_it_answers(port: int, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            break
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return
        time.sleep(0.3)
    raise CommandError(f"The demo did not answer on port {port} within {START_SECONDS} s.")
