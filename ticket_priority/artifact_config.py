"""What config.json says in an artefact of any kind. Standard library only."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final, TypeGuard

from ticket_priority.exceptions import ArtifactError
from ticket_priority.interfaces import ARTIFACT_FORMAT, CLASS_NAMES, ArtifactFile

ADVICE: Final = "Publish the model again, or activate another version."


def read_config(directory: Path, kind: str) -> dict[str, Any]:
    """Return config.json of an artefact of `kind`, its format, kind and classes checked.

    Raises ArtifactError saying what to do.
    """
    path = directory / ArtifactFile.CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing. {ADVICE}") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}. {ADVICE}") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} holds no JSON object. {ADVICE}")
    problem = _problem(values, kind)
    if problem:
        raise ArtifactError(f"{path}: {problem}")
    return values


def write_config(directory: Path, kind: str, values: dict[str, Any]) -> None:
    """Write config.json into `directory`: the format, the kind, the classes, then `values`."""
    head = {"format": ARTIFACT_FORMAT, "kind": kind, "classes": list(CLASS_NAMES)}
    text = json.dumps(head | values, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / ArtifactFile.CONFIG).write_text(text + "\n", encoding="utf-8")


def require_file(directory: Path, name: str) -> Path:
    """Return the path of an artefact's file. Raises ArtifactError when it is missing."""
    path = directory / name
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. {ADVICE}")
    return path


def unreadable(path: Path, error: Exception) -> ArtifactError:
    """Return the error for a file of the artefact that cannot be loaded."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ArtifactError(f"{path} cannot be loaded ({reason}). {ADVICE}")


def is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_positive(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf


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
