"""One normalisation of a ticket's text, the same for training and serving."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from ticket_priority.ml.text.markup import defused, prose_of, without_payloads

MAX_CHARACTERS: Final[int] = 10_000
"""Longest normalised text: four times what 512 tokens hold of the demo tickets.

Of those they hold 1,187 to 2,484 characters, 1,900 on average (multilingual-e5's tokenizer).
"""

_MOST_FILES: Final = 100
"""How many times the limit is searched for embedded files."""

_MOST_MARKUP: Final = 10
"""How many times the limit is read of the rest, which may be mostly markup."""

_MOST_BLANKS: Final = 4
"""How many times the limit is read of the prose, which may be mostly blanks."""

_LAYERS: Final = 3
"""How many nested encodings are decoded."""

_MOST_MARKS_READ: Final = 64
_MOST_MARKS: Final = 8

_SPACES = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
_BLANK_LINES = re.compile(r" ?\n[\n ]*")
_BLANKS: Final = frozenset("\t\u2800")
_LINE_BREAKS: Final = frozenset("\r\n\u2028\u2029\x0b\x0c\x85")
_UNSEEN: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Invisible letters and marks: fillers and joiners."""

_UNSEEN_KINDS: Final = frozenset({"Cc", "Cf", "Cs"})


def normalise(text: str, *, max_characters: int = MAX_CHARACTERS) -> str:
    """Return `text` as the model sees it, at most `max_characters` long.

    HTML, quoted-printable, base64 and data URIs become the prose in them (`markup`). NFKC;
    zero-width, bidirectional and control characters and lone surrogates are removed; runs of blanks
    become one; line breaks stay. Only ten times the limit is read, and four times of what is prose,
    so time is bounded. Normalising twice changes nothing.
    """
    text = without_payloads(text, _MOST_FILES * max_characters)
    text = _tidied(prose_of(text[: _MOST_MARKUP * max_characters]), max_characters)
    for _layer in range(_LAYERS):
        prose = prose_of(text)
        if prose == text:
            break
        text = _tidied(prose, max_characters)
    else:
        text = _tidied(defused(text), max_characters)
    return text[:max_characters].rstrip()


def join_fields(values: Iterable[object]) -> str:
    """Join the non-empty text fields of a ticket, normalised, one a line."""
    parts = (normalise(str(value)) for value in values if value is not None)
    # Once more: fields that are no markup alone may be markup together.
    return normalise("\n".join(part for part in parts if part))


def text_hash(text: str) -> str:
    """Return the SHA-256 of a normalised text, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _tidied(text: str, max_characters: int) -> str:
    """Return the text in NFKC, without invisible characters, and with single blanks."""
    most = _MOST_BLANKS * max_characters
    text = text[:most]
    for character in set(text):
        if character in _BLANKS:
            text = text.replace(character, " ")
        elif character in _LINE_BREAKS:
            text = text.replace(character, "\n")
        elif character in _UNSEEN or unicodedata.category(character) in _UNSEEN_KINDS:
            text = text.replace(character, "")
    if not text.isascii():
        # NFKC takes quadratic time in the length of a run of marks.
        text = unicodedata.normalize("NFKC", _thinned(text, _MOST_MARKS_READ))[:most]
        text = _thinned(text, _MOST_MARKS)
    return _BLANK_LINES.sub("\n", _SPACES.sub(" ", text)).strip()


def _thinned(text: str, most: int) -> str:
    """Return the text with at most `most` combining marks in a row."""
    # Combining marks, also what NFKD decomposes into one.
    marks = {c for c in set(text) if unicodedata.combining(unicodedata.normalize("NFKD", c)[0])}
    if not marks:
        return text
    kept, run = [], 0
    for character in text:
        run = run + 1 if character in marks else 0
        if run <= most:
            kept.append(character)
    return "".join(kept)
