"""The folders of a training run: a new one for each, and an artifact all at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import scratch


@contextmanager
def new_run(output_dir: Path) -> Iterator[Path]:
    """Make `output_dir`/YYYY-MM-DD/HH-MM-SS, a folder that no other run has.

    Its hidden folders are scratch. Those of runs that were killed are deleted now. Raises
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
            # Beside it: Lightning warns of a folder that is not empty.
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
    """Give a folder beside `directory` to write to; it takes that name only when all went well."""
    partial = directory.with_name(f".{directory.name}.partial")
    partial.mkdir()
    try:
        yield partial
        # Not a rename alone: a mounted bucket renames no folders, so there it is copied.
        shutil.move(partial, directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


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
