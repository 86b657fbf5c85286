"""The folders of a training run: a new one for each, and an artifact that is never half written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import scratch
from ticket_priority.ml.types import ArtifactFile

ARTIFACT: Final = "artifact"
"""The artifact's folder below the run's."""


@contextmanager
def new_run(output_dir: Path) -> Iterator[Path]:
    """Make `output_dir`/YYYY-MM-DD/HH-MM-SS, a folder that no other run has.

    Hidden folders in it are temporary; those that killed runs left are deleted now. Raises
    TrainingError when the output folder cannot be written to.
    """
    for mark in scratch.stale(output_dir.glob(f"*/.*{scratch.MARK}")):
        dead = mark.with_name(mark.name.removeprefix(".").removesuffix(scratch.MARK))
        for path in dead.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
    with ExitStack() as marked:
        try:
            run_dir = _new_directory(output_dir)
            # Beside the folder, not in it: Lightning warns of a folder that is not empty.
            mark = run_dir.with_name(f".{run_dir.name}{scratch.MARK}")
            marked.enter_context(scratch.in_use(mark))
        except OSError as error:
            raise TrainingError(
                f"Cannot write to the output folder {output_dir}: {error}. "
                "Choose a folder that can be written to."
            ) from error
        yield run_dir


@contextmanager
def all_or_nothing(directory: Path) -> Iterator[Path]:
    """Yield a folder to write to, which is renamed to `directory` when the block succeeds."""
    partial = directory.with_name(f".{directory.name}.partial")
    partial.mkdir()
    try:
        yield partial
        # shutil copies where a folder cannot be renamed, as in a mounted bucket.
        shutil.move(partial, directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_metrics(directory: Path, figures: Mapping[str, Any]) -> None:
    """Write metrics.json."""
    text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
    (directory / ArtifactFile.METRICS).write_text(text, encoding="utf-8")


def _new_directory(output_dir: Path) -> Path:
    now = datetime.now().astimezone()
    day = output_dir / f"{now:%Y-%m-%d}"
    day.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        run_dir = day / (f"{now:%H-%M-%S}" if number == 1 else f"{now:%H-%M-%S}-{number}")
        with suppress(FileExistsError):
            run_dir.mkdir()
            break
    return run_dir
