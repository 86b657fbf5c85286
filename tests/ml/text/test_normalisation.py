from __future__ import annotations

import base64
import hashlib
import random
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpdesk.demo import labelled_and_open_texts
from tests.support.hostile import FRAGMENTS, HOSTILE_TEXTS
from ticket_priority.ml.text.normalisation import MAX_CHARACTERS, join_fields, normalise, text_hash

ANY_TEXT = st.text(st.characters(), max_size=300)
HOSTILE_TEXT = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), st.text(st.characters(), max_size=5)), max_size=30
).map("".join)
DEMO_TEXTS = "b1eb386b658eac52f27fa157a1162e2120323ea789f4158237b98756ecbd42ba"
FILE = base64.b64encode(random.Random(0).randbytes(60_000)).decode()  # noqa: S311
LINES = "\n".join(FILE[start : start + 76] for start in range(0, 2_000, 76))
OUTLOOK = f"""<html xmlns:o="urn:schemas-microsoft-com:office:office">
<head><style><!-- p.MsoNormal {{margin:0cm;}} --></style><title>Mail</title></head>
<body><!-- a comment --><p class=MsoNormal>The <b>print</b>er is&nbsp;down<o:p></o:p></p>
<script>alert("urgent")</script><table><tr><td>Room</td><td>5 &lt; 6</td></tr></table>
<img src="data:image/png;base64,{FILE}">Regards<br>Ann &amp; Bob</body></html>"""


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  Server\t down ", "Server down"),
        ("a\r\n\r\n  b", "a\nb"),
        ("pass\u200bword\u202e\x00", "password"),
        ("\ufb01le \uff21\uff22", "file AB"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("cafe\u200d\u0301", "café"),
        ("blank\u2800here \u3164\u034fnot there", "blank here not there"),
        ("Cyrillic \u0430 stays", "Cyrillic \u0430 stays"),
        ("", ""),
    ],
)
def test_normalise(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d then <enter>",
        "List<String> x = new ArrayList<>(); &amp; &lt;p&gt;",
        "mail from <ann@example.com>",
        "typing <script>alert(1)</script> in the search runs it",
        "timeout=30 retries=10 limit=99 =FE",
        "sha512 " + hashlib.sha512(b"").hexdigest(),
        "/Users/Shared/" + "a/very/long/folder/" * 4 + "Report2026",
        "-" * 200 + "\n" + "=" * 200 + "\n" + "A" * 200,
        "https://example.com/reset?token=eyJhbGciOiJIUzI1NiJ9",
    ],
)
def test_what_is_no_markup_stays(text: str) -> None:
    assert normalise(text) == text


def test_an_html_mail_becomes_its_prose() -> None:
    assert normalise(OUTLOOK) == "Mail\nThe printer is down\nRoom 5 < 6\nRegards\nAnn & Bob"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("<p>a&lt;script&gt;b&amp;lt;p&amp;gt;", "a< script>b&lt;p&gt;"),
        ("\uff1cp\uff1ehidden \uff1cb\uff1etags", "hidden tags"),
        ("<p>cut off <span style='a", "cut off"),
        ("<p>no end <!-- of the comment", "no end"),
        ("<p>&#" + "1" * 5000 + ";x", "x"),
        (f"see {FILE} above", "see above"),
        (f"see\n{LINES}\nabove", "see\nabove"),
        (f"![shot](data:image/png;base64,{FILE}) broken", "![shot]( ) broken"),
        ("logo [cid:image001.png@01DA] gone", "logo gone"),
        ("Le syst=C3=A8me est en pan=\nne depuis 8=3A00", "Le système est en panne depuis 8:00"),
        ("F=FCr M=FCller =E4ndern", "Für Müller ändern"),
        ("<p class=3D=22x=22>a=C2=A0b<br>Stra=C3=9Fe=20\n</p>", "a b\nStraße"),
    ],
)
def test_what_mail_programs_add_goes(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


def test_what_comes_after_a_large_picture_is_read() -> None:
    raw = f'<p>Hello</p><img src="data:image/png;base64,{FILE * 10}"><p>it is on fire</p>'
    assert normalise(raw) == "Hello\nit is on fire"


@given(st.one_of(ANY_TEXT, HOSTILE_TEXT))
def test_normalised_text_stays_as_it_is_and_can_be_stored(raw: str) -> None:
    once = normalise(raw)
    assert normalise(once) == once
    once.encode("utf-8")
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in once if c != "\n")
    assert len(text_hash(once)) == 64


@given(HOSTILE_TEXT, st.integers(1, 60))
def test_a_text_that_is_cut_stays_as_it_is(raw: str, most: int) -> None:
    once = normalise(raw, max_characters=most)
    assert len(once) <= most
    assert normalise(once, max_characters=most) == once


@given(st.lists(st.one_of(st.none(), HOSTILE_TEXT), max_size=4))
def test_fields_that_are_joined_are_normalised_together(values: list[str | None]) -> None:
    joined = join_fields(values)
    assert normalise(joined) == joined


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_a_huge_text_is_capped_and_quick(name: str) -> None:
    raw = HOSTILE_TEXTS[name]()
    started = time.process_time()
    once = join_fields([raw, raw])
    # Ten times what it takes where nothing else runs; with its square it would be seconds.
    assert time.process_time() - started < 3
    assert len(once) <= MAX_CHARACTERS
    assert normalise(once) == once


def test_the_text_of_ordinary_tickets_is_what_it_was() -> None:
    """Versions were trained on these forms, and hashes of them are stored."""
    labelled, still_open = labelled_and_open_texts()
    texts = sorted(row.text for row in (*labelled, *still_open))
    assert hashlib.sha256("\0".join(texts).encode()).hexdigest() == DEMO_TEXTS


def test_join_fields_leaves_out_what_is_empty() -> None:
    assert join_fields(["Subject ", None, "  ", "Body"]) == "Subject\nBody"


def test_text_hash_tells_texts_apart() -> None:
    assert text_hash("a") != text_hash("b")
    assert len(text_hash("\ud800")) == 64
