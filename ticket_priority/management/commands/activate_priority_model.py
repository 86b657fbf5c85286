"""Choose the model version that serves."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from ticket_priority import classifiers
from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.ml.types import silent
from ticket_priority.models import ModelVersion
from ticket_priority.starter import install as starter

_STARTER_REMARK: Final = (
    "It is a starter, trained on tickets that are not yours. When people have set enough "
    "priorities, replace it: manage.py train_priority_model"
)

_UNCERTIFIED_REMARK: Final = (
    "None of its answers is certified for today's AUTO_APPLY and COSTS, so each is only "
    "suggested: manage.py certify_priority_model"
)


_BEST: Final = "best"
_LINEAR: Final = "linear"


class Command(BaseCommand):
    help = "Activate a model version; every process follows at its next classification."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help="a model version's name")
        parser.add_argument(
            "--previous", action="store_true", help="roll back to the version active before"
        )
        parser.add_argument(
            "--starter",
            nargs="?",
            const=_BEST,
            choices=(_BEST, _LINEAR),
            help="activate the starter model that came with this release, for the time before "
            "there are labels to train on: the best that can be made here, or with "
            "--starter=linear the small one",
        )
        parser.add_argument(
            "--shadow",
            action="store_true",
            help="let the version answer beside the active one, to no effect, to compare them",
        )
        parser.add_argument(
            "--no-shadow", action="store_true", help="let no version be the shadow any more"
        )
        parser.add_argument("--list", action="store_true", help="list the versions and stop")
        parser.add_argument("--json", action="store_true", help="print as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["list"]:
            self._list(as_json=options["json"])
            return
        if options["no_shadow"]:
            self._stop_shadow(options)
            return
        version = self._choose(options)
        try:
            # A version that cannot be loaded must not be made to serve.
            classifiers.load(version)
            rule = classifiers.rule_of(version)
        except TicketPriorityError as error:
            what = "made the shadow" if options["shadow"] else "activated"
            raise CommandError(f"{version.name} was not {what}: {error}") from error
        if options["shadow"]:
            self._start_shadow(version, options)
            return
        version.activate()
        if options["json"]:
            self.stdout.write(json.dumps({"active": version.name, "starter": version.is_starter}))
        elif options["verbosity"] >= 1:
            self.stdout.write(f"{version.name} is active.")
            if version.is_starter:
                self.stdout.write(_STARTER_REMARK)
            if rule.lacks_certificates:
                self.stdout.write(_UNCERTIFIED_REMARK)

    def _start_shadow(self, version: ModelVersion, options: dict[str, Any]) -> None:
        try:
            version.start_shadow()
        except ValueError as error:
            raise CommandError(f"It cannot be its own shadow: {error}") from error
        self._tell_shadow(f"{version.name} is the shadow.", version.name, options)

    def _stop_shadow(self, options: dict[str, Any]) -> None:
        if options["shadow"] or options["previous"] or options["starter"]:
            raise CommandError("Pass --no-shadow alone.")
        version = ModelVersion.objects.shadow()
        if version is None or options["name"] not in (None, version.name):
            raise CommandError(f"{options['name'] or 'No version'} is not the shadow.")
        version.stop_shadow()
        self._tell_shadow(f"{version.name} is no longer the shadow.", None, options)

    def _tell_shadow(self, text: str, name: str | None, options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps({"shadow": name}))
        elif options["verbosity"] >= 1:
            self.stdout.write(text)

    def _choose(self, options: dict[str, Any]) -> ModelVersion:
        given = [options["name"], options["previous"], options["starter"]]
        if sum(map(bool, given)) > 1:
            raise CommandError("Name a model version, or pass --previous, or --starter: one of it.")
        if options["starter"]:
            return self._starter(options)
        return self._previous() if options["previous"] else self._named(options["name"])

    def _starter(self, options: dict[str, Any]) -> ModelVersion:
        speaks = options["verbosity"] >= 1 and not options["json"]
        try:
            if options["starter"] == _LINEAR:
                return starter.install_linear()
            return starter.install(progress=self.stdout.write if speaks else silent)
        except TicketPriorityError as error:
            raise CommandError(f"The starter was not activated: {error}") from error

    def _named(self, name: str | None) -> ModelVersion:
        if not name:
            raise CommandError(
                "Name a model version (--list shows them), or pass --previous or --starter."
            )
        try:
            return classifiers.find_version(name)
        except TicketPriorityError as error:
            raise CommandError(str(error)) from error

    def _previous(self) -> ModelVersion:
        earlier = ModelVersion.objects.filter(is_active=None).exclude(activated_at=None)
        version = earlier.order_by("-activated_at").first()
        if version is None:
            raise CommandError("No other version was ever active.")
        return version

    def _list(self, *, as_json: bool) -> None:
        versions = [
            {
                "name": version.name,
                "active": bool(version.is_active),
                "shadow": bool(version.is_shadow),
                "starter": version.is_starter,
                "base_model": version.base_model,
                "macro_f1": version.figures.get("macro_f1"),
                "created_at": version.created_at.isoformat(timespec="seconds"),
            }
            for version in ModelVersion.objects.all()
        ]
        if as_json:
            self.stdout.write(json.dumps(versions, indent=2))
            return
        for row in versions:
            mark = "*" if row["active"] else " "
            score = "-" if row["macro_f1"] is None else f"{row['macro_f1']:.3f}"
            remark = "  (a starter)" if row["starter"] else ""
            remark += "  (the shadow)" if row["shadow"] else ""
            self.stdout.write(
                f"{mark} {row['name']}  macro F1 {score}  {row['base_model']}{remark}"
            )
