from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticket_priority.text import MAX_CHARACTERS, join_fields, normalise, text_hash

ANY_TEXT = st.text(st.characters(), max_size=300)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  Server\t down ", "Server down"),
        ("a\r\n\r\n  b", "a\nb"),
        ("pass\u200bword\u202e\x00", "password"),
        ("\ufb01le \uff21\uff22", "file AB"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("", ""),
    ],
)
def test_normalise(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


@given(ANY_TEXT)
def test_normalised_text_stays_as_it_is_and_can_be_stored(raw: str) -> None:
    once = normalise(raw)
    assert normalise(once) == once
    once.encode("utf-8")
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in once if c != "\n")


def test_a_huge_text_is_capped() -> None:
    assert len(normalise("word " * 2_000_000)) <= MAX_CHARACTERS


def test_join_fields_leaves_out_what_is_empty() -> None:
    assert join_fields(["Subject ", None, "  ", "Body"]) == "Subject\nBody"


def test_text_hash_tells_texts_apart() -> None:
    assert text_hash("a") != text_hash("b")
    assert len(text_hash("\ud800")) == 64
