"""What somebody might do to the files of a model."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]


class Evil:
    """Touches a file when it is unpickled, as it could do anything else."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def evil_pickle(mark: Path) -> bytes:
    """Return a pickle that leaves a mark wherever it is loaded."""
    content = pickle.dumps(Evil(mark))
    pickle.loads(content)  # noqa: S301
    assert mark.exists(), "it does what it is said to do"
    mark.unlink()
    return content


def flip(path: Path, place: int | None = None) -> None:
    """Flip one bit of a file: in the middle, unless told where."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def edit(name: str, **values: Any) -> Damage:
    """Return a damage that sets values in a JSON file."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def listed(name: str) -> Damage:
    """Return a damage that names one more file in the manifest."""

    def damage(folder: Path) -> None:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        edit("manifest.json", files={**files, name: "0" * 64})(folder)

    return damage


def missing(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def truncated(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def linked_out(folder: Path) -> None:
    """Put the very content elsewhere, where it may change after it was looked at."""
    outside = folder.parent.parent / "outside.onnx"
    (folder / "model.onnx").rename(outside)
    (folder / "model.onnx").symlink_to(outside)


def piped(folder: Path) -> None:
    """Who opens it for reading waits for ever."""
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")


def nested(name: str) -> Damage:
    return lambda folder: (folder / name).write_text("[" * 500_000 + "]" * 500_000) and None


def huge(name: str, size: int) -> Damage:
    """Return a damage that makes a file of so many bytes, which takes no room on the disk."""
    return lambda folder: os.truncate(folder / name, size)


def external_weights(location: str) -> Damage:
    """Return a damage after which model.onnx says that its weights lie in another file."""

    def damage(folder: Path) -> None:
        import onnx
        from onnx import TensorProto

        model = onnx.load(folder / "model.onnx")
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        (folder.parent / "outside.bin").write_bytes(weights.raw_data)
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        entry = weights.external_data.add()
        entry.key, entry.value = "location", location.format(folder=folder.parent)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return damage


def panicking(folder: Path) -> None:
    """Have the tokenizer look up a special token that it has not."""
    template = {"SpecialToken": {"id": "[NONE]", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [template],
        "pair": [],
        "special_tokens": {},
    }
    edit("tokenizer.json", post_processor=processor)(folder)
