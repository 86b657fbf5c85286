from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from ticket_priority.exceptions import ArtifactError
from ticket_priority.ml.artifacts import linear
from ticket_priority.ml.artifacts.reading import ADVICE, require_file, unreadable
from ticket_priority.ml.softmax import softmax
from ticket_priority.ml.types import CLASS_NAMES, ArtifactFile, Classification

Keys = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

_SPACE: Final = ord(" ")
_LAST: Final = 0x10FFFF
_NO_KEY: Final = np.iinfo(np.int64).max
_TENSORS: Final = {
    "words": (np.uint8, 1),
    "word_keys": (np.int64, 1),
    "word_idf": (np.float32, 1),
    "word_coefficients": (np.float32, 2),
    "letters": (np.int32, 1),
    "letter_keys": (np.int64, 1),
    "letter_idf": (np.float32, 1),
    "letter_coefficients": (np.float32, 2),
    "intercepts": (np.float32, 1),
}


class LinearClassifier:
    """A linear artifact on numpy and safetensors, without onnxruntime, torch or scikit-learn.

    A text costs time in proportion to its length and is classified on the caller's own core, so
    `threads` and `batch_tokens` change nothing. Safe to share between threads and across a fork.
    Raises ArtifactError when the artifact is missing, corrupt, newer, or has other classes.
    """

    def __init__(
        self, directory: Path, *, threads: int | None = None, batch_tokens: int = 4096
    ) -> None:
        directory = Path(directory)
        self.config = linear.LinearConfig.read(directory)
        tensors = _load_tensors(directory, len(self.config.learned))
        self._words = _Words(tensors["words"])
        self._word_weights = _Weights(tensors, "word")
        self._letters = _Letters(tensors["letters"])
        self._letter_weights = _Weights(tensors, "letter")
        self._intercepts = tensors["intercepts"].astype(np.float64)

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify normalised texts, in their order. An empty list gives an empty list."""
        if not texts:
            return []
        scores = np.stack([self._scores(text.lower()) for text in texts])
        answers = np.zeros((len(texts), len(CLASS_NAMES)))
        answers[:, self.config.learned] = softmax(scores, self.config.temperature)
        return [Classification(tuple(row)) for row in answers.tolist()]

    def _scores(self, text: str) -> Numbers:
        """Return the score of each learned class."""
        by_words = self._word_weights.score(self._words.keys(text))
        by_letters = self._letter_weights.score(self._letters.keys(text))
        return self._intercepts + by_words + by_letters


class _Weights:
    """One vocabulary's keys, ascending, with the weight of each."""

    def __init__(self, tensors: dict[str, npt.NDArray[Any]], name: str) -> None:
        # One key that no text has, so that searchsorted never returns a place past the end.
        self._keys: Keys = np.append(tensors[f"{name}_keys"], _NO_KEY)
        self._idf = tensors[f"{name}_idf"]
        self._coefficients = tensors[f"{name}_coefficients"]

    def score(self, keys: Keys) -> Numbers:
        """Return what a text's n-grams, repeated ones repeated, add to the score of each class."""
        keys = np.sort(keys)
        is_border = np.ones(len(keys) + 1, np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=is_border[1:-1])
        borders = np.flatnonzero(is_border)
        distinct = keys[borders[:-1]]
        places = self._keys.searchsorted(distinct)
        known = np.flatnonzero(self._keys[places] == distinct)
        places = places[known]
        counts = (borders[1:] - borders[:-1])[known]
        weights: Numbers = (1.0 + np.log(counts)) * self._idf[places]
        length = math.sqrt(weights @ weights) or 1.0
        return np.asarray((weights @ self._coefficients[places]) / length)


class _Words:
    """Turns a lower-case text into the keys of its words and pairs of neighbouring words."""

    def __init__(self, packed: npt.NDArray[np.uint8]) -> None:
        words = packed.tobytes().decode().split("\n")
        self._numbers = {word: number for number, word in enumerate(words, start=1)}
        self._base = len(words) + 1
        self._split = re.compile(linear.WORD_PATTERN).findall

    def keys(self, text: str) -> Keys:
        find = self._numbers.get
        numbers = np.array([find(word, 0) for word in self._split(text)], np.int64)
        first, second = numbers[:-1], numbers[1:]
        pairs = (first * self._base + second)[(first > 0) & (second > 0)]
        return np.concatenate((numbers, pairs))


class _Letters:
    """Turns a lower-case text into the keys of its 3- to 5-grams within a word and its edges."""

    def __init__(self, code_points: npt.NDArray[np.int32]) -> None:
        last = int(code_points[-1]) if len(code_points) else 0
        # By code point; the last place is for all characters that no n-gram holds.
        self._numbers = np.zeros(last + 2, np.int64)
        self._numbers[code_points] = np.arange(1, len(code_points) + 1)
        self._base = len(code_points) + 1

    def keys(self, text: str) -> Keys:
        spaced = f" {' '.join(text.split())} ".encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(spaced, np.uint32)
        numbers = self._numbers[np.minimum(codes, len(self._numbers) - 1)]
        is_known = numbers > 0
        is_inside = is_known & (codes != _SPACE)
        shortest, longest = linear.LETTER_NGRAMS
        keys, is_valid, found = numbers, is_known, []
        for length in range(2, longest + 1):
            keys = keys[:-1] * self._base + numbers[length - 1 :]
            is_valid = is_valid[:-1] & is_known[length - 1 :]
            if length > 2:
                is_valid &= is_inside[length - 2 : -1]
            if length >= shortest:
                found.append(keys[is_valid])
        return np.concatenate(found)


def _load_tensors(directory: Path, classes: int) -> dict[str, npt.NDArray[Any]]:
    path = require_file(directory, ArtifactFile.WEIGHTS)
    try:
        tensors: dict[str, npt.NDArray[Any]] = load_file(path)
    except Exception as error:
        raise unreadable(path, error) from error
    if problem := _problem(tensors, classes):
        raise ArtifactError(f"{path}: {problem}. {ADVICE}")
    return tensors


def _problem(tensors: dict[str, npt.NDArray[Any]], classes: int) -> str:
    """Say what is wrong with an artifact's tensors, or nothing."""
    if set(tensors) != set(_TENSORS):
        return f"it holds {sorted(tensors)}, not {sorted(_TENSORS)}"
    for name, (dtype, dimensions) in _TENSORS.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or tensor.ndim != dimensions:
            return f"{name} is {tensor.dtype} {list(tensor.shape)}"
        if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
            return f"{name} holds numbers that are not finite"
    sizes = {name: len(tensors[f"{name}_keys"]) for name in ("word", "letter")}
    shapes: dict[str, tuple[int, ...]] = {"intercepts": (classes,)}
    for name, size in sizes.items():
        shapes |= {f"{name}_idf": (size,), f"{name}_coefficients": (size, classes)}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            return f"{name} is {list(tensors[name].shape)}, not {list(shape)}"
    return _order_problem(tensors)


def _order_problem(tensors: dict[str, npt.NDArray[Any]]) -> str:
    for name in ("word_keys", "letter_keys"):
        if not _is_ascending(tensors[name]):
            return f"{name} are not in ascending order"
    letters = tensors["letters"]
    fits = len(letters) <= linear.MOST_LETTERS and letters.max(initial=0) <= _LAST
    if not fits or not _is_ascending(letters):
        return "letters are no ascending code points"
    try:
        tensors["words"].tobytes().decode()
    except UnicodeDecodeError as error:
        return f"words cannot be read: {error}"
    return ""


def _is_ascending(values: npt.NDArray[Any]) -> bool:
    # A difference that overflows would look like an ascent.
    return bool((values[:1] > 0).all() and (values[1:] > values[:-1]).all())
