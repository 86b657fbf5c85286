"""Read an artifact's files, and what config.json holds in every kind of artifact.

An artifact may come from anybody, so every value is checked. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from ticket_priority.exceptions import ArtifactError
from ticket_priority.ml.numbers import is_whole
from ticket_priority.ml.types import ARTIFACT_FORMAT, CLASS_NAMES, ArtifactFile

ADVICE: Final = "Publish the model again, or activate another version."

_MOST_JSON: Final = 16 << 20
_MOST_TOKENIZER: Final = 256 << 20


def read_config(
    directory: Path, kind: str, problem_of: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    """Return config.json of an artifact of `kind`, its format, kind and classes checked.

    `problem_of` says what is wrong with the values of this kind, or "". Raises ArtifactError saying
    what to do.
    """
    path = require_file(directory, ArtifactFile.CONFIG)
    try:
        values = read_object(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}. {ADVICE}") from error
    if problem := _problem(values, kind):
        raise ArtifactError(f"{path}: {problem}")
    if problem := problem_of(values):
        raise ArtifactError(f"{path}: {problem}. {ADVICE}")
    return values


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of an artifact. Raises ArtifactError, or OSError."""
    return parse_object(read_small(path), path)


def read_small(path: Path) -> bytes:
    """Return the content of a JSON file. Raises ArtifactError when it is huge, or OSError."""
    _check_size(path, _MOST_JSON)
    return path.read_bytes()


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object in what `path` holds. Raises ArtifactError saying what to do."""
    try:
        values = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON: {error}. {ADVICE}") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} holds no JSON object. {ADVICE}")
    return values


def write_config(directory: Path, kind: str, values: dict[str, Any]) -> None:
    """Write config.json into `directory`: the format, the kind, the classes, then `values`."""
    head = {"format": ARTIFACT_FORMAT, "kind": kind, "classes": list(CLASS_NAMES)}
    text = json.dumps(head | values, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / ArtifactFile.CONFIG).write_text(text + "\n", encoding="utf-8")


def require_file(directory: Path, name: str) -> Path:
    """Return the path of an artifact's file. Raises ArtifactError when it is missing."""
    path = directory / name
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. {ADVICE}")
    return path


def require_tokenizer(directory: Path) -> Path:
    """Return the path of tokenizer.json. Raises ArtifactError when it is missing or huge."""
    path = require_file(directory, ArtifactFile.TOKENIZER)
    _check_size(path, _MOST_TOKENIZER)
    return path


@contextmanager
def panics_named(path: Path) -> Iterator[None]:
    """Raise ArtifactError where the library that read `path` panics.

    A panic in Rust is a BaseException, which the handlers around a ticket's save do not catch. Its
    message may quote the text, so it is left out.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ArtifactError(f"{path} cannot be used: its reader panics. {ADVICE}") from None


def unreadable(path: Path, error: Exception) -> ArtifactError:
    """Return the error for a file of the artifact that cannot be loaded."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ArtifactError(f"{path} cannot be loaded ({reason}). {ADVICE}")


def _problem(values: dict[str, Any], kind: str) -> str:
    """Say what is wrong, or nothing. The format comes first: a newer one may mean anything."""
    version = values.get("format")
    if not is_whole(version):
        return f"its format is {version!r}, not a number. {ADVICE}"
    if version > ARTIFACT_FORMAT:
        return (
            f"format {version} is newer than {ARTIFACT_FORMAT}, the newest this version reads."
            " Upgrade django-ticket-priority, or activate an older model version."
        )
    if values.get("kind") != kind:
        return f"its kind is {values.get('kind')!r}, not {kind!r}. {ADVICE}"
    if values.get("classes") != list(CLASS_NAMES):
        return (
            f"its classes are {values.get('classes')!r}, not {list(CLASS_NAMES)!r}."
            " Train a model with these three classes."
        )
    return ""


def _check_size(path: Path, most: int) -> None:
    if path.stat().st_size > most:
        raise ArtifactError(f"{path} is larger than {most >> 20} MiB. {ADVICE}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
