from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.management.base import CommandError
from django.db import connections

from ticket_priority.exceptions import SourceError
from ticket_priority.management.base import PluginCommand
from ticket_priority.predictions import erasure
from ticket_priority.sources.keys import read_keys
from ticket_priority.sources.registry import find_source


class Command(PluginCommand):
    """Erase what is stored about deleted tickets, about given tickets, or about a person."""

    help = (
        "Erase predictions and decisions about deleted tickets or about given tickets, or a "
        "person's name and reasons from their decisions. A model keeps what it has learnt: train "
        "again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--gone", action="store_true", help="about tickets that no longer exist"
        )
        parser.add_argument(
            "--ticket",
            action="append",
            default=[],
            metavar="app_label.Model:PK",
            help="about this ticket, which stays itself; may be repeated",
        )
        parser.add_argument("--user", metavar="NAME", help="the name and reasons of this user")
        parser.add_argument(
            "--database",
            action="append",
            choices=tuple(connections),
            help="with --gone: every database with tickets; default: the one they are written to",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, but erase nothing")
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        if not (options["gone"] or options["ticket"] or options["user"]):
            raise CommandError("Say what to erase: --gone, --ticket or --user.")
        dry_run = options["dry_run"]
        erased: Counter[str] = Counter()
        tickets = [_ticket(given) for given in options["ticket"]]
        user = _user(options["user"]) if options["user"] else None
        for model, key in tickets:
            erased += erasure.about_tickets(model, [key], dry_run=dry_run)
        if options["gone"]:
            databases = options["database"] or ()
            erased += erasure.about_gone_tickets(databases=databases, dry_run=dry_run)
            for label in erasure.lost_types():
                self.say(
                    f"Kept: rows about {label}, which this project does not have; `manage.py "
                    "remove_stale_contenttypes --include-stale-apps` deletes them."
                )
        if user is not None:
            erased += erasure.about_person(user, dry_run=dry_run)
        counts = ", ".join(f"{number} {name}" for name, number in erased.items()) or "nothing"
        self.report(erased, [f"{'Would be erased' if dry_run else 'Erased'}: {counts}"])


def _ticket(given: str) -> tuple[Any, Any]:
    label, _colon, key = given.partition(":")
    if not key:
        raise CommandError(f"{given!r} is no app_label.Model:PK")
    model = _model(label)
    if not read_keys(model, [key]):
        raise CommandError(f"{key!r} cannot be a key of {label}.")
    return model, key


def _model(label: str) -> Any:
    """Return a source's model, or one that is no source any more; raises SourceError."""
    try:
        return find_source(label).model
    except SourceError:
        with suppress(LookupError, ValueError):
            return apps.get_model(label)
        raise


def _user(name: str) -> Any:
    users = get_user_model()._default_manager
    try:
        return users.get_by_natural_key(name)
    except users.model.DoesNotExist as error:
        raise CommandError(f"There is no user {name!r}.") from error
