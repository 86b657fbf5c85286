"""Train the starter models that the plugin ships, from the demo tickets."""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import BaseCommand

from helpdesk.demo import LANGUAGES, labelled_and_open_texts
from helpdesk.starter_cards import better_card, linear_card
from ticket_priority import __version__
from ticket_priority.ml.artifacts.store import Artifact, publish, remove
from ticket_priority.ml.types import (
    Classifier,
    LabelledText,
    ProgressCallback,
    TrainingConfig,
    silent,
)
from ticket_priority.starter.install import CARD, HEAD_DIRECTORY, STARTER_DIRECTORY
from ticket_priority.training.dataset import Dataset, assemble

if TYPE_CHECKING:
    # scikit-learn and torch take long to import, so only a build imports them.
    from ticket_priority.ml.trainers.linear import model as linear

LINEAR: Final = STARTER_DIRECTORY.name
BETTER: Final = HEAD_DIRECTORY.name


class Command(BaseCommand):
    """Train the starters that the package ships."""

    help = (
        "Train the linear starter and the better starter's head on the demo tickets and write "
        "them, each with its card, into the plugin. The same tickets give the same files on the "
        "same machine. Needs the extras ml and embedded."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--out",
            type=Path,
            default=STARTER_DIRECTORY.parent,
            help=f"the folder to write {LINEAR}/ and {BETTER}/ to; default: %(default)s",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        out: Path = options["out"]
        speaks = options["verbosity"] >= 1
        progress: ProgressCallback = self.stdout.write if speaks else silent
        tickets = _Tickets.of_the_demo()
        with tempfile.TemporaryDirectory() as folder:
            staged = Path(folder)
            chosen = write_linear(tickets, staged / LINEAR, progress)
            published = _publish(staged / LINEAR, out)
            write_head(tickets, chosen, published, staged / BETTER, progress)
            _publish(staged / BETTER, out)
        for name in (LINEAR, BETTER):
            progress((out / name / CARD).read_text(encoding="utf-8"))
            progress(f"Written to {out / name}.")


@dataclass(frozen=True, slots=True)
class _Tickets:
    """The demo tickets: those that a starter is fitted to, and those that it is measured on."""

    dataset: Dataset
    seen: list[LabelledText]
    still_open: list[LabelledText]

    @classmethod
    def of_the_demo(cls) -> _Tickets:
        labelled, still_open = labelled_and_open_texts()
        dataset = assemble(labelled)
        return cls(dataset, [*dataset.train, *dataset.validation], still_open)

    @property
    def unseen(self) -> dict[str, list[LabelledText]]:
        """The tickets to measure on, by their names on the cards."""
        together = [*self.dataset.test, *self.still_open]
        return {
            "test": list(self.dataset.test),
            "open": self.still_open,
            "all": together,
            **{
                language: [row for row in together if row.language == language]
                for language in LANGUAGES
            },
        }

    def describe(self, unseen: Mapping[str, Any]) -> dict[str, Any]:
        """Return the `starter` metrics, with the figures on the unseen tickets."""
        return {
            "release": __version__,
            "dataset": self.dataset.summary(),
            "fitted_to": assemble(self.seen).fingerprint,
            "unseen": unseen,
        }


def write_linear(tickets: _Tickets, directory: Path, progress: ProgressCallback) -> linear.Trial:
    """Write the linear starter's files, all but the manifest, into `directory`.

    Its settings are chosen on the validation split; then it is fitted to the training and the
    validation split together. It is measured as it is served.
    """
    from ticket_priority.ml.serving.linear import LinearClassifier
    from ticket_priority.ml.trainers.linear import model as linear
    from ticket_priority.ml.trainers.linear.baselines import majority

    directory.mkdir()
    dataset, seen = tickets.dataset, tickets.seen
    monitor = TrainingConfig().monitor
    chosen = linear.choose(dataset.train, dataset.validation, monitor)
    progress(f"C {chosen.C:g}, class weight {chosen.class_weight or 'none'}")
    model = linear.train(seen, C=chosen.C, class_weight=chosen.class_weight)
    size = replace(model, temperature=chosen.model.temperature).write(directory)
    reports = _reports(LinearClassifier(directory), tickets.unseen)
    figures: dict[str, Any] = {
        "model": reports["test"],
        "majority": majority(seen, dataset.test),
        "serving": linear.serving_figures(size),
        "training": {
            "best_val_accuracy": chosen.figures["val_accuracy"],
            "best_val_macro_f1": chosen.figures["val_macro_f1"],
            "monitor": monitor,
            "rows": {"train": len(seen), "test": len(dataset.test)},
            "C": chosen.C,
            "class_weight": chosen.class_weight,
            "temperature": chosen.model.temperature,
        },
        "starter": tickets.describe(
            {
                name: reports[name] | {"majority": majority(seen, rows)}
                for name, rows in tickets.unseen.items()
            }
        ),
    }
    _write_descriptions(directory, figures, linear_card(figures))
    return chosen


def write_head(
    tickets: _Tickets,
    words: linear.Trial,
    linear_starter: Artifact,
    directory: Path,
    progress: ProgressCallback,
) -> None:
    """Write the head's files, all but the manifest, into `directory`.

    It is fitted to the tickets of the linear starter, which was fitted as `words`. The better
    starter is measured as a host makes it from these files.
    """
    from ticket_priority.ml.serving.ensemble import EnsembleClassifier
    from ticket_priority.ml.trainers import starter

    directory.mkdir()
    fit = starter.fit(tickets.seen, words, progress=progress)
    progress(f"C {fit.C:g}, temperature {fit.mean.config.temperature:.2f}")
    fit.head.write(directory)
    fit.mean.config.write(directory)
    with tempfile.TemporaryDirectory() as made:
        serving = starter.write_members(
            directory, linear_starter.directory, Path(made), progress=progress
        )
        reports = _reports(EnsembleClassifier(Path(made)), tickets.unseen)
    rivals = linear_starter.metrics
    figures: dict[str, Any] = {
        "model": reports["test"],
        "tfidf_logreg": rivals["model"],
        "majority": rivals["majority"],
        "serving": serving,
        "training": {
            "monitor": starter.MONITOR,
            "folds": fit.folds,
            "candidates": {name: candidate.figures for name, candidate in fit.candidates.items()},
            "rows": {"train": len(tickets.seen), "test": len(tickets.dataset.test)},
            "C": fit.C,
            "temperature": fit.mean.config.temperature,
        },
        "starter": tickets.describe(
            {
                name: report | _beside(rivals["starter"]["unseen"][name])
                for name, report in reports.items()
            }
        )
        | {"linear": linear_starter.digest},
    }
    _write_descriptions(directory, figures, better_card(figures))


def _beside(report: dict[str, Any]) -> dict[str, Any]:
    """Return the reports of the linear starter and of the majority, to compare with."""
    own = {name: value for name, value in report.items() if name != "majority"}
    return {"linear": own, "majority": report["majority"]}


def _reports(
    classifier: Classifier, groups: Mapping[str, Sequence[LabelledText]]
) -> dict[str, dict[str, Any]]:
    """Return a report on each group of tickets; a text of several groups is classified once."""
    from ticket_priority.ml.evaluation import metrics

    texts = list(dict.fromkeys(row.text for rows in groups.values() for row in rows))
    answers = dict(zip(texts, classifier.classify(texts), strict=True))
    return {
        name: metrics.report_on(
            rows, probabilities=[answers[row.text].probabilities for row in rows]
        )
        for name, rows in groups.items()
    }


def _write_descriptions(directory: Path, figures: dict[str, Any], card: str) -> None:
    from ticket_priority.ml.trainers.runs.folders import write_metrics

    write_metrics(directory, figures)
    (directory / CARD).write_text(card, encoding="utf-8")


def _publish(staged: Path, out: Path) -> Artifact:
    remove(out / staged.name)
    return publish(staged, out, staged.name)
