"""config.json and the tensors of a linear artifact: what training writes and serving reads.

model.safetensors holds two vocabularies of n-grams, each in ascending order of its keys, so that
looking one up builds nothing in memory:

- `words`: every word of the vocabulary, UTF-8, a line each (uint8). Word number n is on line n,
  counted from 1. `word_keys` (int64): a word's number, or for a pair of words
  first * (words + 1) + second.
- `letters`: every character of the letter n-grams, ascending code points (int32), numbered from 1.
  `letter_keys` (int64): the numbers of an n-gram's characters as digits to the base letters + 1.

For each vocabulary `*_idf` [n] and `*_coefficients` [n, classes] (float32); and `intercepts`
[classes] (float32). Columns stand for the classes that `LinearConfig.learned` names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ticket_priority.ml.artifacts.reading import read_config, write_config
from ticket_priority.ml.numbers import is_positive
from ticket_priority.ml.types import CLASS_NAMES

KIND: Final = "linear"

WORD_NGRAMS: Final = (1, 2)
LETTER_NGRAMS: Final = (3, 5)

WORD_PATTERN: Final = r"\b\w\w+\b"
"""The regular expression of a word."""

MOST_LETTERS: Final = 6_207
"""With more different characters than this, the key of a 5-gram would not fit 63 bits."""


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """How a linear artifact turns a text into probabilities.

    `learned` holds the class ids that training saw, ascending; the others have probability 0.
    `temperature` divides the scores.
    """

    learned: tuple[int, ...]
    temperature: float = 1.0

    @classmethod
    def read(cls, directory: Path) -> LinearConfig:
        """Read and check `directory`/config.json. Raises ArtifactError saying what to do."""
        values = read_config(directory, KIND, _problem)
        learned = tuple(CLASS_NAMES.index(name) for name in values["learned"])
        return cls(learned, float(values["temperature"]))

    def write(self, directory: Path) -> None:
        """Write config.json into `directory`."""
        values = {
            "learned": [CLASS_NAMES[label] for label in self.learned],
            "temperature": self.temperature,
            "word_ngrams": list(WORD_NGRAMS),
            "letter_ngrams": list(LETTER_NGRAMS),
        }
        write_config(directory, KIND, values)


def _problem(values: dict[str, Any]) -> str:
    """Say what is wrong, or nothing."""
    learned = values.get("learned")
    if not isinstance(learned, list) or not learned:
        return f"learned is {learned!r}, not a list of classes"
    if learned != [name for name in CLASS_NAMES if name in learned]:
        return f"learned is {learned!r}, not some of {list(CLASS_NAMES)!r} in this order"
    for name, known in (("word_ngrams", WORD_NGRAMS), ("letter_ngrams", LETTER_NGRAMS)):
        if values.get(name) != list(known):
            return f"{name} is {values.get(name)!r}, not {list(known)!r}"
    if not is_positive(temperature := values.get("temperature")):
        return f"temperature is {temperature!r}, not a positive number"
    return ""
