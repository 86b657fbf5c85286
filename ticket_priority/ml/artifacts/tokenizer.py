from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ticket_priority.ml.artifacts.reading import panics_named, require_tokenizer, unreadable
from ticket_priority.ml.artifacts.transformer import TransformerConfig


class TextTokenizer:
    """The artifact's tokenizer.json, with the prefix and the length that config.json gives.

    Safe to share between threads. Raises ArtifactError when it is missing, huge or unreadable.
    """

    def __init__(self, directory: Path, config: TransformerConfig) -> None:
        self._path = require_tokenizer(directory)
        self._prefix = config.prefix
        with panics_named(self._path):
            try:
                self._tokenizer = Tokenizer.from_file(str(self._path))
            except Exception as error:
                raise unreadable(self._path, error) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(config.max_length)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, at most `max_length`, special tokens included.

        Raises ArtifactError where the tokenizer panics.
        """
        with panics_named(self._path):
            return [self._tokenizer.encode(self._prefix + text).ids for text in texts]
