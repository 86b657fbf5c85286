"""Train on the tickets whose priority people set."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ticket_priority.conf import get_settings
from ticket_priority.exceptions import TicketPriorityError
from ticket_priority.interfaces import CLASS_NAMES, TrainingConfig
from ticket_priority.sources import find_sources
from ticket_priority.training import ACTIVATE_CHOICES, TrainingOutcome, configure, train_model

_RUNGS = {"model": "this model", "tfidf_logreg": "TF-IDF + LR", "majority": "majority"}


class Command(BaseCommand):
    help = (
        "Train a priority model on the tickets whose priority people set, publish it, and "
        "activate it when it is at least as good as the active one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--source", action="append", help="app_label.Model; default: all")
        parser.add_argument("--activate", choices=ACTIVATE_CHOICES, default="if-better")
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
        run = parser.add_argument_group("training (defaults from TICKET_PRIORITY)")
        run.add_argument("--model-name", help="hub id, local folder, or 'embedded'")
        run.add_argument("--output-dir", help="where runs, logs and checkpoints go")
        run.add_argument("--resume", dest="resume_from", metavar="CKPT")
        run.add_argument("--epochs", dest="max_epochs", type=int)
        run.add_argument("--batch-size", type=int)
        run.add_argument("--max-length", type=int, help="tokens a ticket, at most 512")
        run.add_argument("--learning-rate", type=float)
        run.add_argument("--head-learning-rate", type=float)
        run.add_argument("--weight-decay", type=float)
        run.add_argument("--lr-scheduler", choices=["cosine"])
        run.add_argument("--warmup-ratio", type=float)
        run.add_argument("--trainable-layers", type=int, help="top layers to train; 0: the head")
        run.add_argument("--precision", help="auto, 32-true, bf16-mixed, 16-mixed, ...")
        run.add_argument("--accelerator", help="auto, cpu, gpu, ...")
        run.add_argument("--devices", type=_devices, help="a number, a list like 0,1, or auto")
        run.add_argument("--strategy", help="auto, ddp, ...")
        run.add_argument("--accumulate-grad-batches", type=int)
        run.add_argument("--gradient-clip-val", type=float)
        run.add_argument("--patience", type=int, help="epochs without gain before stopping")
        run.add_argument("--monitor", choices=["val_accuracy", "val_macro_f1", "val_loss"])
        run.add_argument("--num-workers", type=int)
        run.add_argument("--threads", type=int, help="CPU threads; default: the usable cores")
        run.add_argument("--seed", type=int)
        run.add_argument("--wandb-project", help="log to Weights & Biases too")
        run.add_argument("--wandb-mode", choices=["online", "offline", "disabled"])
        run.add_argument("--no-quantize", dest="quantize", action="store_false", default=None)
        run.add_argument("--local-files-only", action="store_true", default=None)

    def handle(self, *args: Any, **options: Any) -> None:
        names = TrainingConfig.__dataclass_fields__
        speaks = options["verbosity"] >= 1 and not options["json"]
        try:
            outcome = train_model(
                configure(**{name: options.get(name) for name in names}),
                sources=find_sources(options["source"] or ()),
                activate=options["activate"],
                progress=self.stdout.write if speaks else _silent,
                show_progress_bar=speaks and sys.stdout.isatty(),
            )
        except TicketPriorityError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. The active model is as it was.", returncode=130) from None
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(outcome), indent=2))
        elif options["verbosity"] >= 1:
            for line in _report(outcome):
                self.stdout.write(line)


def _devices(value: str) -> int | str:
    return int(value) if value.isdigit() else value


def _silent(line: str) -> None:
    pass


def _as_json(outcome: TrainingOutcome) -> dict[str, Any]:
    return {
        "model_version": outcome.version.name,
        "activated": outcome.activated,
        "reason": outcome.reason,
        "run_dir": str(outcome.run_dir),
        "artifact": str(get_settings().artifact_root / outcome.version.directory),
        "dataset": outcome.version.dataset,
        "metrics": outcome.version.metrics,
    }


def _report(outcome: TrainingOutcome) -> Iterator[str]:
    metrics = outcome.version.metrics
    rungs = {name: metrics[name] for name in _RUNGS if name in metrics}
    yield ""
    yield _row("test split", *(_RUNGS[name] for name in rungs))
    for figure, title in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
        yield _row(title, *(f"{rung[figure]:.3f}" for rung in rungs.values()))
    for name in CLASS_NAMES:
        yield _row(
            f"{name}: precision / recall", *(_precision_recall(r, name) for r in rungs.values())
        )
    yield ""
    if "tfidf_logreg" in rungs and rungs["model"]["macro_f1"] < rungs["tfidf_logreg"]["macro_f1"]:
        yield "Note: TF-IDF + logistic regression does better than this model on this test split."
    yield f"Model version  {outcome.version.name}"
    yield f"Active         {'yes' if outcome.activated else 'no'}: {outcome.reason}"
    yield f"Artefact       {get_settings().artifact_root / outcome.version.directory}"
    yield f"Run            {outcome.run_dir}"


def _row(title: str, *cells: str) -> str:
    return f"{title:<28}" + "".join(f"{cell:>16}" for cell in cells)


def _precision_recall(rung: Mapping[str, Any], name: str) -> str:
    figures = rung["per_class"].get(name)
    return f"{figures['precision']:.2f} / {figures['recall']:.2f}" if figures else "-"
