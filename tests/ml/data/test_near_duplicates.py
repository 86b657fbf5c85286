from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticket_priority.ml.data import near_duplicates
from ticket_priority.ml.data.near_duplicates import SAME, TextSimilarity, near_copy_key

SIGNATURE = " ".join(f"{a}{b}confidential" for a in "abcdefghij" for b in "abcdefghij")


def vocabulary(size: int = 5000) -> list[str]:
    draw = random.Random(5)  # noqa: S311
    return ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(size)]


def texts_of(count: int, words: int, seed: int = 1) -> list[str]:
    draw, known = random.Random(seed), vocabulary()  # noqa: S311
    return [" ".join(draw.choices(known, k=words)) for _ in range(count)]


def grouped(texts: list[str]) -> list[int]:
    return TextSimilarity(texts).groups().tolist()


def pairs_of(text: str) -> set[tuple[str, str]]:
    words = text.split()
    return set(zip(words, words[1:], strict=False))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The printer on floor 3 is down!", "the PRINTER on floor 12 is down"),
        ("404", "404"),
        ("Drucker", "drucker!"),
        (
            "Good morning, since eight the queue is empty for all of us in Dublin and no lorry "
            "leaves the depot, please look at it soon. Anna",
            "Good morning, since nine the queue is empty for all of us in Dublin and no lorry "
            "leaves the depot, please look at it soon. Bert",
        ),
        (
            "打印机从今天早上八点开始就不能用了请尽快派人来看一下谢谢",
            "打印机从昨天早上八点开始就不能用了请尽快派人来看一下谢谢",
        ),
    ],
    ids=["digits and case", "no words", "one word", "names", "no blanks between words"],
)
def test_near_copies_are_of_one_group(one: str, other: str) -> None:
    assert grouped(["something else entirely", one, other]) == [0, 1, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("404", "500"),
        ("The printer is down", "The printer is slow"),
        ("打印机从今天早上八点开始就不能用了", "请把新同事加到邮件列表里谢谢大家"),
    ],
)
def test_different_texts_are_not(one: str, other: str) -> None:
    assert grouped([one, other]) == [0, 1]


def test_a_chain_of_near_copies_is_one_group() -> None:
    (text,) = texts_of(1, 60)
    chain = [text.split()]
    for place in range(0, 60, 6):
        chain.append([*chain[-1][:place], f"changed{'x' * place}", *chain[-1][place + 1 :]])
    assert grouped([" ".join(words) for words in chain]) == [0] * 11


def test_every_planted_near_copy_is_found_and_nothing_else() -> None:
    draw, known = random.Random(3), vocabulary()  # noqa: S311
    originals = texts_of(1500, 40)
    copies = []
    for text in originals[:500]:
        words = text.split()
        words[draw.randrange(40)] = draw.choice(known)
        copies.append(" ".join(words))
    groups = grouped(originals + copies)
    assert groups[:1500] == list(range(1500))
    assert groups[1500:] == list(range(500))


@given(st.lists(st.text("abcd ", min_size=1, max_size=40), max_size=25))
def test_a_group_has_a_name_and_every_member_a_near_copy(texts: list[str]) -> None:
    groups = grouped(texts)
    similarity = TextSimilarity(texts)
    for place, first in enumerate(groups):
        assert first <= place
        assert groups[first] == first
        mates = [mate for mate, group in enumerate(groups) if group == first and mate != place]
        if mates:
            (closest,) = similarity.nearest([place], mates)
            same_words = any(
                near_copy_key(texts[place]) == near_copy_key(texts[mate]) for mate in mates
            )
            assert closest >= SAME or same_words


def test_the_nearest_text_is_found_exactly() -> None:
    draw, known = random.Random(9), vocabulary(40)  # noqa: S311
    texts = [" ".join(draw.choices(known, k=12)) for _ in range(40)]
    truth = [
        max(
            len(pairs_of(texts[row]) & pairs_of(texts[other]))
            / len(pairs_of(texts[row]) | pairs_of(texts[other]))
            for other in range(10, 40)
        )
        for row in range(10)
    ]
    assert any(truth)
    assert TextSimilarity(texts).nearest(range(10), range(10, 40)).tolist() == pytest.approx(truth)


def test_leakage_is_measured_and_not_assumed() -> None:
    texts = texts_of(40, 12)
    beginning = " ".join(texts[30].split()[:9])
    similarity = TextSimilarity([*texts, f"{texts[3]} thanks", f"{beginning} in other words"])
    found = similarity.leakage(np.arange(40), np.array([40, 41]))
    assert found == {"test_rows": 2, "near_copies": 1, "similar": 2}
    apart = TextSimilarity(["one two three four", "five six seven eight"])
    assert apart.leakage(np.array([0]), np.array([1])) == {
        "test_rows": 1,
        "near_copies": 0,
        "similar": 0,
    }


def test_a_signature_does_not_make_one_group_of_all() -> None:
    texts = [f"{text} {SIGNATURE}" for text in texts_of(300, 12)]
    assert len(set(grouped(texts))) == 300


def test_the_same_alert_about_many_hosts_is_one_group() -> None:
    hosts = vocabulary()[:300]
    alert = "Disk full on host {} please extend the volume soon or stop the backup of tonight"
    assert Counter(grouped([alert.format(host) for host in hosts])) == {0: 300}


def test_pairs_are_found_in_a_bucket_of_thousands() -> None:
    """Two thousand texts that share a half with each other, and half of them have a copy."""
    draw, known = random.Random(4), vocabulary()  # noqa: S311
    shared = " ".join(draw.choices(known, k=7))
    originals = [f"{shared} {text}" for text in texts_of(1000, 8, seed=2)]
    groups = grouped(originals + [f"{text} thanks" for text in originals])
    found = sum(groups[1000 + place] == groups[place] for place in range(1000))
    assert found == 1000
    assert len(set(groups)) == 1000


def test_the_comparisons_do_not_grow_with_the_square_of_the_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every text shares its opening with all others, so each bucket it opens holds them all."""
    compared: Counter[int] = Counter()
    jaccard = near_duplicates._jaccard

    def counted(one: Any, other: Any) -> float:
        compared[size] += 1
        return jaccard(one, other)

    monkeypatch.setattr(near_duplicates, "_jaccard", counted)
    for size in (400, 800, 1600):
        opening = " ".join(vocabulary()[:6])
        TextSimilarity([f"{opening} {text}" for text in texts_of(size, 4)]).groups()
    assert compared[400] > 400
    assert compared[1600] < 6 * compared[400]
