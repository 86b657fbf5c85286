from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.ml.conftest import toy_rows
from ticket_priority.ml.trainers.label_quality import examine
from ticket_priority.ml.types import LabelledText

FLIPPED = (7, 50, 123, 200)


def shuffled(count: int) -> list[LabelledText]:
    draw = random.Random(4)  # noqa: S311
    return [replace(row, label=draw.randrange(3)) for row in toy_rows(count, seed=1)]


def test_a_planted_mislabel_is_found() -> None:
    rows = toy_rows(240, seed=1)
    for place in FLIPPED:
        rows[place] = replace(rows[place], label=(rows[place].label + 1) % 3)
    figures = examine(rows, learning_curve=False)
    assert figures is not None
    found = figures["suspicions"]
    assert {one.place for one in found[:4]} == set(FLIPPED)
    assert len(found) <= 6
    for one in found[:4]:
        assert one.label == rows[one.place].label
        assert one.looks_like == (one.label - 1) % 3
        assert one.probability >= 0.6


def test_what_can_be_learnt_is_significant_and_clean() -> None:
    figures = examine(toy_rows(240, seed=1))
    assert figures is not None
    assert figures["accuracy"] > 0.95
    assert figures["majority_macro_f1"] == pytest.approx(1 / 6)
    assert figures["p_value"] < 0.01
    assert figures["suspicions"] == []
    curve = figures["learning_curve"]
    assert [one["rows"] for one in curve] == [48, 96, 144, 192]
    assert curve[-1]["macro_f1"] > 0.95


def test_labels_at_random_are_no_better_than_chance() -> None:
    figures = examine(shuffled(240), learning_curve=False)
    assert figures is not None
    assert figures["p_value"] > 0.05
    assert len(figures["suspicions"]) < 12, "a model that knows nothing accuses nobody"


def test_near_copies_do_not_help_each_other() -> None:
    """Labels at random, each on three copies: out of fold they must stay a riddle."""
    rows = [
        replace(row, text=f"{row.text} number{copy}", group=f"group {place}")
        for place, row in enumerate(shuffled(120))
        for copy in range(3)
    ]
    figures = examine(rows, learning_curve=False)
    assert figures is not None
    assert figures["accuracy"] < 0.5
    apart = examine([replace(row, group="") for row in rows], learning_curve=False)
    assert apart is not None
    assert apart["accuracy"] > 0.8


@pytest.mark.parametrize(
    "rows",
    [
        [],
        toy_rows(30, seed=1, classes=(2,)),
        [*toy_rows(30, seed=1, classes=(0, 1)), LabelledText("fire", 2)],
        [LabelledText("!", place % 3) for place in range(30)],
    ],
    ids=["none", "one class", "one ticket of a class", "no words"],
)
def test_too_little_to_fit_a_model_to_gives_none(rows: list[LabelledText]) -> None:
    assert examine(rows) is None
