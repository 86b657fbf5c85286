"""Train without Django and without a database, on a file that a helpdesk exported."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from ticket_priority.exceptions import ArtifactError, TicketPriorityError, TrainingError
from ticket_priority.ml.artifacts import store
from ticket_priority.ml.data.jsonl import describe, read_splits
from ticket_priority.ml.evaluation.report import data_lines, lines
from ticket_priority.ml.hyperparameters import presets
from ticket_priority.ml.hyperparameters.arguments import add_to
from ticket_priority.ml.trainers.fit import fit
from ticket_priority.ml.types import ArtifactFile, TrainingConfig, TrainingResult, silent

_VERTEX: Final = {
    "data": "AIP_TRAINING_DATA_URI",
    "out": "AIP_MODEL_DIR",
    "output_dir": "AIP_CHECKPOINT_DIR",
}
"""The environment variables of a Vertex AI custom job, by the argument that they replace."""

_RANKS: Final = ("NODE_RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""The variables that number a process: torchrun's RANK, else those of Lightning and clusters."""

_BUCKET: Final = "gs://"
_MOUNTED: Final = "/gcs/"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        _fit(options)
    except TicketPriorityError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. No artifact was written.\n")
        return 130
    return 0


def _fit(options: argparse.Namespace) -> None:
    data, out = _place(options, "data"), _place(options, "out")
    if data is None:
        raise TrainingError(f"Give DATA, or set {_VERTEX['data']}.")
    if out is None:
        raise TrainingError(f"Give --out, or set {_VERTEX['out']}.")
    config = _configuration(options)
    # Every process of a distributed run comes here; only the first one prints and writes.
    is_first = _is_first()
    prints = is_first and not options.json and not options.quiet
    store.check_unused(out)
    if is_first:
        store.check_writable(out)
    if prints:
        _say(f"Reading {data}")
    splits, split_by = read_splits(data)
    figures = describe(splits, split_by) if is_first else {}
    if prints:
        for line in data_lines(figures):
            _say(line)
    progress, show_progress_bar = _say if prints else silent, prints and sys.stdout.isatty()
    result = fit(**splits, config=config, progress=progress, show_progress_bar=show_progress_bar)
    if is_first:
        _finish(result, out, figures, options)


def _finish(
    result: TrainingResult, out: Path, figures: dict[str, Any], options: argparse.Namespace
) -> None:
    text = json.dumps(figures, indent=2) + "\n"
    (result.artifact_dir / ArtifactFile.DATASET).write_text(text, encoding="utf-8")
    try:
        artifact = store.write(result.artifact_dir, out)
    except ArtifactError as error:
        where = f"What was trained is in {result.artifact_dir}"
        with suppress(ArtifactError):
            store.seal(result.artifact_dir)
            where += ", and can be brought in from there"
        raise ArtifactError(f"{error} {where}.") from error
    store.remove(result.artifact_dir)
    if options.json:
        outcome = {
            "artifact": str(out),
            "digest": artifact.digest,
            "run_dir": str(result.run_dir),
            "dataset": figures,
            "metrics": artifact.metrics,
        }
        _say(json.dumps(outcome, indent=2))
    elif not options.quiet:
        for line in lines(artifact.metrics):
            _say(line)
        _say(f"Artifact       {out}")
        _say(f"Run            {result.run_dir}")
        _say("Bring it in    manage.py import_priority_model FOLDER")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ticket_priority.ml",
        description="Train where there is no Django and no database.",
    )
    commands = parser.add_subparsers(required=True, metavar="fit")
    command = commands.add_parser(
        "fit",
        help="train on a file",
        description="Train on a file of `manage.py export_training_data` and write an artifact "
        "for `manage.py import_priority_model`.",
    )
    command.add_argument(
        "data", nargs="?", metavar="DATA", help=f"JSON Lines; default: ${_VERTEX['data']}"
    )
    command.add_argument(
        "--out", metavar="DIR", help=f"a new folder for the artifact; default: ${_VERTEX['out']}"
    )
    command.add_argument("--json", action="store_true", help="print the outcome as JSON")
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_to(command.add_argument_group("training"))
    return parser


def _configuration(options: argparse.Namespace) -> TrainingConfig:
    given = {
        item.name: value
        for item in fields(TrainingConfig)
        if (value := getattr(options, item.name, None)) is not None
    }
    if (output_dir := _place(options, "output_dir")) is not None:
        given["output_dir"] = str(output_dir)
    try:
        return presets.configure(
            TrainingConfig().model_name, options.preset or presets.DEFAULT_PRESET, given
        )
    except ValueError as error:
        raise TrainingError(f"The training configuration is wrong: {error}.") from error


def _is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether this is the first process of a run, without asking Lightning."""
    names = ("RANK",) if "RANK" in environment else _RANKS
    return all(environment.get(name, "0") == "0" for name in names)


def _place(
    options: argparse.Namespace, name: str, environment: Mapping[str, str] = os.environ
) -> Path | None:
    """Return the path that an argument or Vertex AI names; a bucket's is where it is mounted."""
    given = getattr(options, name) or environment.get(_VERTEX[name])
    if not given:
        return None
    if given.startswith(_BUCKET):
        return Path(_MOUNTED, given.removeprefix(_BUCKET))
    if "://" in given:
        raise TrainingError(f"{given} is neither a path nor {_BUCKET}...: export a file first.")
    return Path(given)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
