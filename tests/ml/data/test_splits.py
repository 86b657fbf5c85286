from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticket_priority.ml.data.splits import MIN_DAYS, Split, split

DAY = 86_400.0


def at_random(labels: list[int], groups: Any) -> Split:
    return split(np.array(labels, dtype=np.int8), groups)


def numbered(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 2**63, count, dtype=np.uint64)


def members(groups: Any, rows: Any) -> set[int]:
    return set(groups[rows].tolist())


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=80), st.booleans())
def test_splits_share_no_group_and_lose_nothing(
    pairs: list[tuple[int, int]], by_time: bool
) -> None:
    groups = np.array([group for group, _ in pairs], dtype=np.uint64)
    labels = np.array([label for _, label in pairs], dtype=np.int8)
    origins = np.zeros(len(pairs), dtype=np.int32)
    created_at = np.arange(len(pairs)) * DAY if by_time else None
    found = split(labels, groups, origins, created_at)
    parts = (found.train, found.validation, found.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(pairs)))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not members(groups, parts[one]) & members(groups, parts[other])


def test_a_random_split_is_stratified_and_the_same_in_any_order() -> None:
    groups, labels = numbered(300), [index % 3 for index in range(300)]
    found = at_random(labels, groups)
    assert (len(found.train), len(found.validation), len(found.test)) == (210, 45, 45)
    assert Counter(labels[row] for row in found.test) == {0: 15, 1: 15, 2: 15}
    backwards = at_random(labels[::-1], groups[::-1])
    assert members(groups[::-1], backwards.test) == members(groups, found.test)


def test_few_rows_move_when_tickets_are_added() -> None:
    groups, more = numbered(300), numbered(30, seed=1)
    before = at_random([index % 3 for index in range(300)], groups)
    after = at_random([index % 3 for index in range(330)], np.concatenate([groups, more]))
    everything = np.concatenate([groups, more])
    moved = members(groups, before.test) - members(everything, after.test)
    assert len(moved) <= 3
    assert not members(groups, before.test) & members(everything, after.train[:210])


def test_a_random_split_is_the_same_in_every_release() -> None:
    """The gate compares versions on tickets that neither was trained on."""
    groups = np.arange(40, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    found = at_random([0] * 40, groups)
    assert found.test.tolist() == [5, 8, 11, 23, 28, 37]
    assert found.validation.tolist() == [3, 4, 16, 19, 34, 36]


@pytest.mark.parametrize("by_time", [True, False])
def test_a_group_too_large_to_test_with_is_trained_on(by_time: bool) -> None:
    groups = numbered(400)
    groups[::4] = groups[0]
    labels = np.array([index % 3 for index in range(400)], dtype=np.int8)
    created_at = np.arange(400) * DAY if by_time else None
    found = split(labels, groups, np.zeros(400, dtype=np.int32), created_at)
    assert groups[0] in members(groups, found.train)
    assert min(len(found.validation), len(found.test)) >= 30


def timed(created_at: list[float], *, labels: Any = None, groups: Any = None) -> Split:
    count = len(created_at)
    labels = [index % 3 for index in range(count)] if labels is None else labels
    return split(
        np.array(labels, dtype=np.int8),
        numbered(count) if groups is None else groups,
        np.zeros(count, dtype=np.int32),
        np.array(created_at),
    )


def test_by_time_the_past_is_trained_on_and_the_newest_test() -> None:
    found = timed([day * DAY for day in range(100)])
    assert found.kind == "time"
    assert found.train.tolist() == list(range(70))
    assert found.validation.tolist() == list(range(70, 85))
    assert found.test.tolist() == list(range(85, 100))


def test_by_time_a_group_stands_where_its_newest_row_does() -> None:
    groups = numbered(100)
    groups[[3, 40, 95]] = groups[3]
    groups[[4, 75]] = groups[4]
    found = timed([day * DAY for day in range(100)], groups=groups)
    assert {3, 40, 95} <= set(found.test.tolist())
    assert {4, 75} <= set(found.validation.tolist())


def test_by_time_a_row_only_moves_towards_training_as_tickets_are_added() -> None:
    groups = numbered(150)
    before = timed([day * DAY for day in range(100)], groups=groups[:100])
    after = timed([day * DAY for day in range(150)], groups=groups)
    assert set(before.train.tolist()) <= set(after.train.tolist())
    assert set(before.validation.tolist()) <= {*after.train.tolist(), *after.validation.tolist()}


def test_by_time_a_newer_copy_takes_its_group_back_to_the_test() -> None:
    groups = numbered(101)
    groups[100] = groups[3]
    before = timed([day * DAY for day in range(100)], groups=groups[:100])
    after = timed([day * DAY for day in range(101)], groups=groups)
    assert 3 in before.train
    assert {3, 100} <= set(after.test.tolist())


def test_by_time_a_group_that_is_no_longer_too_large_stands_at_its_newest_row() -> None:
    groups = numbered(130)
    copies = {10, 20, 30, 40, 50, 98}
    groups[list(copies)] = groups[98]
    before = timed([day * DAY for day in range(100)], groups=groups[:100])
    after = timed([day * DAY for day in range(130)], groups=groups)
    assert copies <= set(before.train.tolist())
    assert copies <= set(after.validation.tolist())


def test_each_source_has_a_timeline_of_its_own() -> None:
    created_at = [day * DAY for day in range(100)] + [(5000 + day) * DAY for day in range(100)]
    found = split(
        np.array([index % 3 for index in range(200)], dtype=np.int8),
        numbered(200),
        np.array([0] * 100 + [1] * 100, dtype=np.int32),
        np.array(created_at),
    )
    assert found.test.tolist() == [*range(85, 100), *range(185, 200)]


@pytest.mark.parametrize(
    ("created_at", "labels", "reason"),
    [
        ([float("nan")] + [day * DAY for day in range(99)], None, "1 of 100 tickets have no time"),
        ([index * 60.0 for index in range(100)], None, f"too few days: 1, not {MIN_DAYS}"),
        ([day * DAY for day in range(100)], [2] * 20 + [0, 1] * 40, "no ticket that is high"),
    ],
    ids=["unknown time", "one import", "class that has died out"],
)
def test_where_time_cannot_split_chance_does(
    created_at: list[float], labels: list[int] | None, reason: str
) -> None:
    found = timed(created_at, labels=labels)
    assert found.kind == "random"
    assert reason in found.reason
    assert len(found.test) == pytest.approx(15, abs=2)
