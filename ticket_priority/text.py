"""One normalisation of a ticket's text, the same for training and serving."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

MAX_CHARACTERS: Final[int] = 10_000
"""Longest normalised text. 512 tokens hold fewer characters than this in every language."""

_SPACES = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\s*\n\s*")


def normalise(text: str, *, max_characters: int = MAX_CHARACTERS) -> str:
    """Return `text` as the model sees it, at most `max_characters` long.

    NFKC; zero-width, bidirectional and control characters and lone surrogates go; runs of blanks
    become one; line breaks stay. Only four times the limit is read, so time is bounded.
    """
    head = unicodedata.normalize("NFKC", text[: 4 * max_characters])
    visible = "".join(
        character if unicodedata.category(character) not in _REPLACED else _replacement(character)
        for character in head
    )
    lines = _BLANK_LINES.sub("\n", _SPACES.sub(" ", visible))
    return lines.strip()[:max_characters].rstrip()


def join_fields(values: Iterable[object]) -> str:
    """Join the non-empty text fields of a ticket, normalised, one a line."""
    parts = (normalise(str(value)) for value in values if value is not None)
    return "\n".join(part for part in parts if part)[:MAX_CHARACTERS].rstrip()


def text_hash(text: str) -> str:
    """Return the SHA-256 of a normalised text, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_REPLACED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _replacement(character: str) -> str:
    if character in "\r\n\u2028\u2029\x0b\x0c\x85":
        return "\n"
    return " " if character == "\t" else ""
