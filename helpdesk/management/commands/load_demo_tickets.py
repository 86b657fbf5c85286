from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from helpdesk.demo import AGENT_NAMES, load_demo_tickets

DEMO_PASSWORD: Final = "demo-helpdesk"  # noqa: S105


class Command(BaseCommand):
    """Load the demo team, queues and tickets."""

    help = (
        "Load the demo team, queues and tickets. Most tickets are labelled history; the rest are "
        "open and unlabelled. Running it again adds only what is missing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--password",
            help=f"of the demo users; given, it is also set on those already there "
            f"(default for new ones: {DEMO_PASSWORD})",
        )

    def handle(self, *args: Any, password: str | None, verbosity: int, **options: Any) -> None:
        if password is None and not settings.DEBUG:
            raise CommandError(
                "Debugging is off, so this may be a public site: give the demo users a --password."
            )
        if password == "":
            raise CommandError("--password must not be empty.")
        try:
            report = load_demo_tickets(
                password=password or DEMO_PASSWORD, reset_passwords=password is not None
            )
        except (OSError, ValueError) as error:
            raise CommandError(f"The demo tickets cannot be read: {error}") from error
        if verbosity < 1:
            return
        self.stdout.write(
            self.style.SUCCESS(
                f"Added {report.history} labelled past tickets, {report.open} open ones, "
                f"{report.comments} comments, {report.queues} queues and {report.users} users."
            )
        )
        if report.users or password is not None:
            self.stdout.write(
                f"Log in as {', '.join(AGENT_NAMES)} with the password {password or DEMO_PASSWORD}"
            )
