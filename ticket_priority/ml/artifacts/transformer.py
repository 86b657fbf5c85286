"""config.json of a transformer artifact: what training writes and every classifier reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ticket_priority.ml.artifacts.reading import read_config, write_config
from ticket_priority.ml.numbers import is_positive, is_whole
from ticket_priority.ml.types import MAX_TOKENS

KIND: Final = "transformer"

_LARGEST_TOKEN_ID: Final = 2**31 - 1
_LONGEST_PREFIX: Final = 1_000


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """How a transformer artifact turns a text into probabilities.

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
        values = read_config(directory, KIND, _problem)
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
        names = ("max_length", "prefix", "pad_token_id", "temperature", "pooling", "base_model")
        values = {name: getattr(self, name) for name in (*names, "encoder", "onnx")}
        write_config(directory, KIND, values)


def _problem(values: dict[str, Any]) -> str:
    """Say what is wrong, or nothing."""
    length, padding = values.get("max_length"), values.get("pad_token_id")
    if not is_whole(length) or not 1 <= length <= MAX_TOKENS:
        return f"max_length is {length!r}, not 1 to {MAX_TOKENS}"
    if not is_whole(padding) or not 0 <= padding <= _LARGEST_TOKEN_ID:
        return f"pad_token_id is {padding!r}, not a token id"
    prefix = values.get("prefix")
    if not isinstance(prefix, str) or len(prefix) > _LONGEST_PREFIX:
        return f"prefix is not a text of at most {_LONGEST_PREFIX} characters"
    if not is_positive(temperature := values.get("temperature")):
        return f"temperature is {temperature!r}, not a positive number"
    if not all(isinstance(values.get(name, {}), dict) for name in ("encoder", "onnx")):
        return "encoder and onnx must be objects"
    return ""
