from __future__ import annotations

import gc
import hashlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticket_priority.exceptions import DatasetError
from ticket_priority.ml.data.jsonl import (
    SPLITS,
    Spool,
    StoredRows,
    Texts,
    decode,
    describe,
    encode,
    fingerprint,
    read_splits,
)
from ticket_priority.ml.text.normalisation import normalise
from ticket_priority.ml.types import LabelledText

TEXTS = st.text(max_size=60).map(normalise).filter(bool)


def row(number: int = 0, **changes: Any) -> LabelledText:
    given = {
        "text": f"Drucker „{number}“\nkaputt 🖨",
        "label": number % 3,
        "group": f"{number:016x}",
        "source": "helpdesk.Ticket",
        "pk": str(number),
        "language": "de",
        "segment": "it",
        "created_at": "2026-01-01T00:00:00.000000+00:00",
        "provenance": "override",
        "weight": 0.5,
    }
    return LabelledText(**given | changes)


def written(folder: Path, *lines: str) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@given(TEXTS, st.integers(0, 2), st.text(max_size=5), st.floats(0.01, 100))
def test_a_row_comes_back_as_it_was(text: str, label: int, pk: str, weight: float) -> None:
    given = row(text=text, label=label, pk=pk, weight=weight)
    assert decode(encode(given, "test", "time").encode()) == (given, "test", "time")


def test_a_file_gives_its_rows_by_split(tmp_path: Path) -> None:
    splits = ["train", "test", "train", "validation"]
    lines = [encode(row(number), split) for number, split in enumerate(splits)]
    found, split_by = read_splits(written(tmp_path, *lines[:2], "", *lines[2:]))
    assert split_by == ""
    assert list(found["train"]) == [row(0), row(2)]
    assert found["test"][0] == row(1)
    assert found["validation"][-1] == row(3)
    assert found["train"][0:5] == [row(0), row(2)]
    assert list(Texts(found["train"])) == [row(0).text, row(2).text]
    assert Texts(found["train"])[:1] == [row(0).text]
    assert list(found["train"].take(np.array([1]))) == [row(2)]
    with pytest.raises(IndexError):
        found["test"][1]


def test_a_row_needs_a_text_a_label_and_a_split_and_no_more(tmp_path: Path) -> None:
    line = json.dumps({"text": " Ｎo\u200b paper ", "label": "low", "split": "train", "mood": 7})
    splits, _ = read_splits(written(tmp_path, line))
    (found,) = splits["train"]
    assert found == LabelledText(text="No paper", label=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ('{"label": "low", "split": "train"}', '"text" must be a text'),
        ('{"text": "\\u200b", "label": "low", "split": "train"}', '"text" must be a text'),
        ('{"text": "a", "label": "urgent", "split": "train"}', "not 'urgent'"),
        ('{"text": "a", "label": ["low"], "split": "train"}', '"label" must be low or'),
        ('{"text": "a", "label": "low"}', 'it names no "split"'),
        ('{"text": "a", "label": "low", "split": "dev"}', "not 'dev'"),
        ('{"text": "a", "label": "low", "split": "test", "weight": 0}', '"weight" must be'),
        ('{"text": "a", "label": "low", "split": "test", "weight": true}', '"weight" must be'),
        ('{"text": "a", "label": "low", "split": "test", "weight": NaN}', '"weight" must be'),
        (f'{{"text": "a", "label": "low", "split": "test", "weight": 1{"0" * 400}}}', "at most"),
        ('{"text": "a", "label": "low", "split": "test", "split_by": "luck"}', "not 'luck'"),
        ('{"text": "a", "label": "low", "split": "test", "pk": 7}', '"pk" must be a text, not 7'),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, encode(row(), "train"), line)
    with pytest.raises(DatasetError) as caught:
        read_splits(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert message in str(caught.value)


def test_bytes_that_are_no_text_are_said_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"text": "\xff", "label": "low", "split": "train"}\n')
    with pytest.raises(DatasetError, match="line 1: it is not JSON"):
        read_splits(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing\.jsonl cannot be read: No such file"):
        read_splits(tmp_path / "nothing.jsonl")


def spooled(count: int) -> StoredRows:
    spool = Spool()
    for number in range(count):
        spool.append(row(number, group=""))
    spool.finish()
    return StoredRows(spool, np.arange(count), np.arange(count, dtype=np.uint64))


def test_a_spool_keeps_rows_and_adds_their_groups() -> None:
    rows = spooled(5)
    assert list(rows) == [row(number) for number in range(5)]
    assert rows.take(np.array([4, 2]))[1] == row(2)


def test_rows_can_be_sent_to_another_process_and_do_not_take_the_file_with_them() -> None:
    rows = spooled(3)
    sent = pickle.loads(pickle.dumps(rows))  # noqa: S301
    assert list(sent) == list(rows)
    del sent
    gc.collect()
    assert rows[2] == row(2)


def test_threads_may_read_at_once() -> None:
    rows = spooled(200)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(rows.__getitem__, list(range(200)) * 5))
    assert found == list(rows) * 5


def test_the_label_is_not_written_as_a_number() -> None:
    assert json.loads(encode(replace(row(), label=2), "train"))["label"] == "high"


def digested(*pairs: tuple[str, int]) -> tuple[Any, Any]:
    digests = np.array([hashlib.sha256(text.encode()).digest() for text, _ in pairs], dtype="V32")
    return digests, np.array([label for _, label in pairs], dtype=np.int8)


def test_the_fingerprint_changes_with_a_label_and_not_with_the_order() -> None:
    one = fingerprint(*digested(("a", 1), ("b", 2)))
    assert one == fingerprint(*digested(("b", 2), ("a", 1)))
    assert one != fingerprint(*digested(("a", 1), ("b", 1)))
    line = f"{hashlib.sha256(b'a').hexdigest()} 1"
    assert fingerprint(*digested(("a", 1))) == hashlib.sha256(line.encode()).hexdigest()


def test_a_file_is_described_in_figures(tmp_path: Path) -> None:
    near = "the same printer on floor {} is broken again and nobody can print an invoice"
    texts = [near.format(3), "a wish", near.format(4)]
    lines = [
        encode(LabelledText(text, place, provenance="host" * (place < 2)), split)
        for place, (text, split) in enumerate(zip(texts, SPLITS, strict=True))
    ]
    figures = describe(*read_splits(written(tmp_path, *lines)))
    assert figures["rows"] == {"train": 1, "validation": 1, "test": 1}
    assert figures["classes"]["test"] == {"high": 1}
    assert figures["provenance"] == {"host": 2, "unknown": 1}
    assert figures["leakage"] == {"test_rows": 1, "near_copies": 1, "similar": 1}
    assert figures["fingerprint"] == fingerprint(*digested(*zip(texts, range(3), strict=True)))
    assert figures["split"] == {"by": "file", "reason": ""}
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize(
    ("kinds", "known"), [(["time"] * 3, "time"), (["time", "random", "time"], ""), ([""] * 3, "")]
)
def test_a_file_says_how_it_was_split_where_its_lines_agree(
    tmp_path: Path, kinds: list[str], known: str
) -> None:
    lines = [encode(row(), split, by) for split, by in zip(SPLITS, kinds, strict=True)]
    splits, split_by = read_splits(written(tmp_path, *lines))
    assert split_by == known
    assert describe(splits, split_by)["split"]["by"] == (known or "file")
