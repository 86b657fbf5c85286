"""config.json of a transformer artefact: what training writes and every classifier reads."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard

from ticket_priority.exceptions import ArtifactError
from ticket_priority.interfaces import ARTIFACT_FORMAT, CLASS_NAMES, MAX_TOKENS, ArtifactFile

KIND: Final = "transformer"

_ADVICE: Final = "Publish the model again, or activate another version."


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """How a transformer artefact turns a text into probabilities.

    `max_length` is in tokens, special tokens included; `prefix` is put before every text;
    `temperature` divides the logits; `pooling` is "native" or "mean"; `encoder` is the base
    model's own configuration; `onnx` says what model.onnx holds.
    """

    max_length: int
    prefix: str
    pad_token_id: int
    pooling: str
    base_model: str
    encoder: dict[str, Any]
    onnx: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0

    @classmethod
    def read(cls, directory: Path) -> TransformerConfig:
        """Read and check `directory`/config.json. Raises ArtifactError saying what to do."""
        path = directory / ArtifactFile.CONFIG
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ArtifactError(f"{path} is missing. {_ADVICE}") from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}. {_ADVICE}") from error
        if not isinstance(values, dict):
            raise ArtifactError(f"{path} holds no JSON object. {_ADVICE}")
        problem = _problem(values)
        if problem:
            raise ArtifactError(f"{path}: {problem}")
        return cls(
            max_length=values["max_length"],
            prefix=values["prefix"],
            pad_token_id=values["pad_token_id"],
            pooling=str(values.get("pooling", "")),
            base_model=str(values.get("base_model", "")),
            encoder=dict(values.get("encoder") or {}),
            onnx=dict(values.get("onnx") or {}),
            temperature=float(values["temperature"]),
        )

    def write(self, directory: Path) -> None:
        """Write config.json into `directory`."""
        values = {
            "format": ARTIFACT_FORMAT,
            "kind": KIND,
            "classes": list(CLASS_NAMES),
            "max_length": self.max_length,
            "prefix": self.prefix,
            "pad_token_id": self.pad_token_id,
            "temperature": self.temperature,
            "pooling": self.pooling,
            "base_model": self.base_model,
            "encoder": self.encoder,
            "onnx": self.onnx,
        }
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
        (directory / ArtifactFile.CONFIG).write_text(text + "\n", encoding="utf-8")


def require_file(directory: Path, name: str) -> Path:
    """Return the path of an artefact's file. Raises ArtifactError when it is missing."""
    path = directory / name
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. {_ADVICE}")
    return path


def unreadable(path: Path, error: Exception) -> ArtifactError:
    """Return the error for a file of the artefact that cannot be loaded."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ArtifactError(f"{path} cannot be loaded ({reason}). {_ADVICE}")


def _problem(values: dict[str, Any]) -> str:
    """Say what is wrong, or nothing. The format comes first: a newer one may mean anything."""
    version = values.get("format")
    if not _whole(version):
        return f"its format is {version!r}, not a number. {_ADVICE}"
    if version > ARTIFACT_FORMAT:
        return (
            f"format {version} is newer than {ARTIFACT_FORMAT}, the newest this version reads."
            " Upgrade django-ticket-priority, or activate an older model version."
        )
    if values.get("kind") != KIND:
        return f"its kind is {values.get('kind')!r}, not {KIND!r}. {_ADVICE}"
    if values.get("classes") != list(CLASS_NAMES):
        return (
            f"its classes are {values.get('classes')!r}, not {list(CLASS_NAMES)!r}."
            " Train a model with these three classes."
        )
    length, padding = values.get("max_length"), values.get("pad_token_id")
    if not _whole(length) or not 1 <= length <= MAX_TOKENS:
        return f"max_length is {length!r}, not 1 to {MAX_TOKENS}. {_ADVICE}"
    if not _whole(padding) or padding < 0:
        return f"pad_token_id is {padding!r}, not a token id. {_ADVICE}"
    if not isinstance(values.get("prefix"), str):
        return f"prefix is {values.get('prefix')!r}, not a text. {_ADVICE}"
    temperature = values.get("temperature")
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        return f"temperature is {temperature!r}, not a positive number. {_ADVICE}"
    if not all(isinstance(values.get(name, {}), dict) for name in ("encoder", "onnx")):
        return f"encoder and onnx must be objects. {_ADVICE}"
    return ""


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
