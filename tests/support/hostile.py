"""Texts that break what reads them carelessly, and the pieces that such texts are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

_BASE64 = "QWxhZGRpbjpvcGVuIHNlc2FtZTEyMzQ1Njc4OTBhYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ekE9"

FRAGMENTS: Final[tuple[str, ...]] = (
    *("<p>", "<p", "</p >", "<br/>", "<div style='", "<b>", "<", ">", "&", ";", "'", '"', "--"),
    *("<!--", "-->", "<!", "<?", "<script>", "</script>", "<style>", "</style", "<o:p>", "<td>"),
    *("&lt;", "&amp;", "&gt;", "&#60;", "&#x200b;", "&#" + "9" * 5000, "&nbsp", "lt;", "amp;"),
    *("\uff1c", "\uff1e", "\u200b", "\u200d", "\u202e", "\x00", "\ud800", "\u2800", "\u3164"),
    *("\u0301", "\u0323", "\u0345", "\u0f73", "\uff9e", "e", "a", "\u1100\u1161", "\ufdfa"),
    *("\u0301\u0323" * 50, "\u0f73" * 9, " ", "  ", "\n", "\r\n", "\t", "\u2028", "\u1680"),
    *("=", "=3D", "=C3=A9", "=C3", "=A9", "3D", "=\n", "=FC", "x=FCr", "y" * 70 + "=\n", "=E2=80"),
    *(_BASE64, _BASE64 * 2, _BASE64[:60], _BASE64[:59], "ab=", "+", "/", "A" * 61, "9" * 60),
    *("data:image/png;base64,", "data:", ";base64,", ",", "[cid:", "]", "text/html", "urgent!!!"),
)

HOSTILE_TEXTS: Final[Mapping[str, Callable[[], str]]] = {
    "10 MB of words": lambda: "word " * 2_000_000,
    "a million blanks": lambda: " " * 1_000_000 + "end",
    "a million blank lines": lambda: " \n" * 1_000_000,
    "a million NUL bytes": lambda: "\x00" * 1_000_000,
    "a million lone surrogates": lambda: "\ud800" * 1_000_000,
    "bidi and zero-width": lambda: "a\u202e\u200b" * 300_000,
    "combining marks": lambda: "a" + "\u0301\u0323" * 500_000,
    "marks that NFKC makes": lambda: "a" + "\u0f73" * 1_000_000,
    "marks between marks": lambda: "a" + "\u0301\uff9e" * 500_000,
    "ligatures that grow 18 times": lambda: "\ufdfa" * 1_000_000,
    "every character once": lambda: "".join(map(chr, range(0x110000))),
    "tags": lambda: "<p>" * 300_000,
    "tags without an end": lambda: "<p " * 300_000,
    "smaller than": lambda: "<" * 1_000_000,
    "comments without an end": lambda: "<p>" + "<!--" * 300_000,
    "scripts without an end": lambda: "<p>" + "<script></script" * 100_000,
    "entities": lambda: "<p>" + ("&" + "a" * 31) * 30_000,
    "a number of a million digits": lambda: "<p>&#" + "1" * 1_000_000,
    "entities of entities": lambda: "<p>" + ("&amp;" * 3 + "lt;p&gt;") * 50_000,
    "10 MB of base64": lambda: _BASE64 * 130_000,
    "base64 lines": lambda: (_BASE64[:76] + "\n") * 20_000,
    "nearly base64": lambda: ("A" * 60 + " ") * 20_000,
    "a data URI of 900 kB": lambda: "<img src='data:image/png;base64," + "A" * 900_000 + "'>",
    "starts of data URIs": lambda: "data:image/png;base64," * 50_000,
    "inline images without an end": lambda: "[cid:" * 200_000,
    "quoted-printable": lambda: "=C3=A9" * 200_000,
    "quoted-printable of itself": lambda: "=3D" * 100_000 + "C3=A9=C3=A9",
}
