"""Extract the prose from what mail programs write: HTML, quoted-printable, base64.

Standard library only. Every pattern takes linear time, whatever the text. The result may hold
markup that was encoded in the text, so `normalise` repeats this until nothing changes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from itertools import islice
from typing import Final

_STRUCTURE: Final = (
    "html|head|body|p|br|div|span|table|tbody|thead|tr|td|th|ul|ol|li|h[1-6]|blockquote|pre|hr|"
    "font|center|meta|style"
)
_IS_HTML = re.compile(rf"<!doctype html|<(?:{_STRUCTURE})(?:[\s/][^<>]*)?>", re.IGNORECASE)
_ELEMENT = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(?P<unread>script|style)\b[^<>]*>.*?(?:</(?P=unread)\b[^<>]*>|\Z)"
    r"|<(?:[!?][^<>]*|/?(?P<name>[a-z][a-z0-9]*)(?::[a-z0-9]+)?(?:[\s/][^<>]*)?)(?:>|\Z)",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_WITHIN_A_LINE = re.compile(
    r"(?:abbr|acronym|[abiqsu]|bd[io]|big|cite|code|del|em|font|ins|kbd|label|mark|o|samp|small|span"
    r"|strike|strong|su[bp]|tt|var|wbr)?",
    re.IGNORECASE,
)
_BETWEEN_CELLS = re.compile(r"td|th|img|input|button", re.IGNORECASE)
_TAG_START = re.compile(r"<(?=[a-z/!?])", re.IGNORECASE | re.ASCII)
_IMPOSSIBLE_NUMBER = re.compile(r"&#[0-9]{8,};?")

_ESCAPED_UTF8 = re.compile(
    r"=(?:C[2-9A-F]|D[0-9A-F]|E[0-9A-F]=[89AB][0-9A-F]|F[0-4](?:=[89AB][0-9A-F]){2})=[89AB][0-9A-F]"
)
_ESCAPED_LATIN = re.compile(r"[A-Za-z]=[C-F][0-9A-F][a-z]")
_FULL_LINE = re.compile(r"^[^\n]{60,75}=\r?$", re.MULTILINE)
_SOFT_BREAK = re.compile(r"=[ \t]?\r?\n")
_ESCAPES = re.compile(r"(?:=[0-9A-F]{2})+")
_FEW: Final = 2

_DATA_URI = re.compile(
    r"\bdata:(?:application|audio|font|image|text|video)/[\w.+-]+(?:;[\w.+=-]+)*,[^\s\"'<>()]*",
    re.IGNORECASE | re.ASCII,
)
_PAYLOAD = re.compile(r";base64,[A-Za-z0-9+/=%]*")
_NO_PAYLOAD: Final = ";base64,"
_INLINE_IMAGE = re.compile(r"\[cid:[^\]\s]{1,200}\]", re.IGNORECASE)
_CODE: Final = r"[A-Za-z0-9+/=_-]"
_LINES_OF_CODE = re.compile(
    rf"(?<!{_CODE}){_CODE}{{60,}}(?:\s{{1,3}}{_CODE}{{60,}})*"
    rf"(?:\s{{1,3}}{_CODE}{{1,60}}(?<==)(?!{_CODE}))?"
)
_SHORTEST_BLOB: Final = 120
_SIGNS_OF_CODE: Final = tuple(map(re.compile, ("[A-Z]", "[a-z]", "[0-9]")))

_MARKS_OF_MARKUP = str.maketrans("<&=", "   ")


def without_payloads(text: str, most: int) -> str:
    """Return the first `most` characters without the files in data URIs, found quickly.

    Prose may follow a picture of some hundred kilobytes.
    """
    return _PAYLOAD.sub(_NO_PAYLOAD, text[:most])


def prose_of(text: str) -> str:
    """Return the text without markup, encodings and embedded files; most texts as they are."""
    if "=" in text and _is_quoted_printable(text):
        text = _decoded(text)
    if "<" in text and _IS_HTML.search(text):
        text = _without_tags(text)
    for pattern, replace in _EMBEDDED:
        text = pattern.sub(replace, text)
    return text


def defused(text: str) -> str:
    """Return the text without the characters that markup and encodings are made of."""
    return prose_of(text.translate(_MARKS_OF_MARKUP))


def _is_quoted_printable(text: str) -> bool:
    """Say whether it holds escapes that prose and code, such as "timeout=30", never hold."""
    if _ESCAPED_UTF8.search(text):
        return True
    return _holds_some(_ESCAPED_LATIN, text) or _holds_some(_FULL_LINE, text)


def _holds_some(pattern: re.Pattern[str], text: str) -> bool:
    return len(list(islice(pattern.finditer(text), _FEW))) == _FEW


def _decoded(text: str) -> str:
    text = _SOFT_BREAK.sub("", text)
    encoding = "utf-8" if _ESCAPED_UTF8.search(text) else "cp1252"

    def characters(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("=", "")).decode(encoding, "replace")

    return _ESCAPES.sub(characters, text)


def _without_tags(text: str) -> str:
    text = html.unescape(_IMPOSSIBLE_NUMBER.sub(" ", _ELEMENT.sub(_break_for, text)))
    # What was written as an entity is prose, and must not be read as a tag next time.
    return _TAG_START.sub("< ", text)


def _break_for(match: re.Match[str]) -> str:
    """Return what replaces a tag: nothing within a line, a line break between blocks."""
    name = match["name"] or ""
    if _WITHIN_A_LINE.fullmatch(name):
        return ""
    return " " if _BETWEEN_CELLS.fullmatch(name) else "\n"


def _blank_for(match: re.Match[str]) -> str:
    """Return a blank for what looks like base64, and anything else as it is."""
    run = match[0]
    if len(run) < _SHORTEST_BLOB or not all(sign.search(run) for sign in _SIGNS_OF_CODE):
        return run
    return " "


_EMBEDDED: Final[tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    (_DATA_URI, " "),
    (_PAYLOAD, _NO_PAYLOAD),
    (_INLINE_IMAGE, " "),
    (_LINES_OF_CODE, _blank_for),
)
