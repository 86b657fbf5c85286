from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import CommandError

from ticket_priority.classifiers import find_version, load, rule_of
from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.management.base import PluginCommand
from ticket_priority.ml.evaluation.figures import Metrics
from ticket_priority.models import ModelVersion
from ticket_priority.starter.install import install, install_linear

_STARTER_REMARK: Final = (
    "It is a starter, trained on tickets that are not yours. When people have set enough "
    "priorities, replace it: manage.py train_priority_model"
)
_UNCERTIFIED_REMARK: Final = (
    "None of its answers is certified for the present AUTO_APPLY and COSTS, so each is only "
    "suggested: manage.py certify_priority_model"
)
_BEST: Final = "best"
_LINEAR: Final = "linear"


class Command(PluginCommand):
    """Choose the model version that serves, or the shadow."""

    help = "Activate a model version; every process uses it from its next classification on."

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
            help="activate the starter model of this release, for the time before there are labels "
            "to train on: the best that this machine can build, or the small one with "
            "--starter=linear",
        )
        parser.add_argument(
            "--shadow",
            action="store_true",
            help="let the version answer beside the active one, without effect, to compare them",
        )
        parser.add_argument("--no-shadow", action="store_true", help="end the shadow")
        parser.add_argument("--list", action="store_true", help="list the versions and stop")
        super().add_arguments(parser)

    def run(self, options: dict[str, Any]) -> None:
        if options["list"]:
            versions = [_described(version) for version in ModelVersion.objects.all()]
            self.report(versions, map(_line, versions))
        elif options["no_shadow"]:
            self._stop_shadow(options)
        else:
            self._start(self._choose(options), as_shadow=options["shadow"])

    def _start(self, version: ModelVersion, *, as_shadow: bool) -> None:
        try:
            # A version that cannot be loaded must not be made to serve.
            load(version)
            rule = rule_of(version)
            if as_shadow:
                version.start_shadow()
        except (TicketPriorityError, ValueError) as error:
            what = "made the shadow" if as_shadow else "activated"
            raise CommandError(f"{version.name} was not {what}: {error}") from error
        if as_shadow:
            self.report({"shadow": version.name}, [f"{version.name} is the shadow."])
            return
        version.activate()
        lines = [f"{version.name} is active."]
        lines += [_STARTER_REMARK] if version.is_starter else []
        lines += [_UNCERTIFIED_REMARK] if rule.lacks_certificates else []
        self.report({"active": version.name, "starter": version.is_starter}, lines)

    def _stop_shadow(self, options: dict[str, Any]) -> None:
        if options["shadow"] or options["previous"] or options["starter"]:
            raise CommandError("Pass --no-shadow alone.")
        version = ModelVersion.objects.shadow()
        if version is None or options["name"] not in (None, version.name):
            raise CommandError(f"{options['name'] or 'No version'} is not the shadow.")
        version.stop_shadow()
        self.report({"shadow": None}, [f"{version.name} is no longer the shadow."])

    def _choose(self, options: dict[str, Any]) -> ModelVersion:
        given = [options["name"], options["previous"], options["starter"]]
        if sum(map(bool, given)) != 1:
            raise CommandError(
                "Give one of these: a model version's name (--list shows them), --previous, "
                "--starter."
            )
        if options["starter"]:
            return self._starter(options["starter"])
        if not options["previous"]:
            return find_version(options["name"])
        version = ModelVersion.objects.previous()
        if version is None:
            raise CommandError("No other version was ever active.")
        return version

    def _starter(self, kind: str) -> ModelVersion:
        try:
            return install_linear() if kind == _LINEAR else install(progress=self.say)
        except TicketPriorityError as error:
            raise CommandError(f"The starter was not activated: {error}") from error


def _described(version: ModelVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "active": bool(version.is_active),
        "shadow": bool(version.is_shadow),
        "starter": version.is_starter,
        "base_model": version.base_model,
        "macro_f1": Metrics.read(version.metrics).own.figure("macro_f1"),
        "created_at": version.created_at.isoformat(timespec="seconds"),
    }


def _line(row: dict[str, Any]) -> str:
    mark = "*" if row["active"] else " "
    score = "-" if row["macro_f1"] is None else f"{row['macro_f1']:.3f}"
    remarks = "  (a starter)" if row["starter"] else ""
    remarks += "  (the shadow)" if row["shadow"] else ""
    return f"{mark} {row['name']}  macro F1 {score}  {row['base_model']}{remarks}"
