"""The demo tickets follow docs/rubric.md."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from helpdesk.demo import LANGUAGES, QUEUES, DemoTicket, read_demo_tickets

SHINGLE_WORDS = 5
NEAR_COPY = 0.3


@pytest.fixture(scope="module")
def tickets() -> list[DemoTicket]:
    return list(read_demo_tickets())


def rubric(impact: int, urgency: int) -> str:
    total = impact + urgency
    return "low" if total <= 3 else "medium" if total == 4 else "high"


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    if len(words) < SHINGLE_WORDS:
        return {tuple(words)}
    return {
        tuple(words[start : start + SHINGLE_WORDS])
        for start in range(len(words) - SHINGLE_WORDS + 1)
    }


def test_there_are_enough_of_them(tickets: list[DemoTicket]) -> None:
    assert len(tickets) >= 600
    assert len({ticket.id for ticket in tickets}) == len(tickets)


def test_every_language_has_every_trade_and_every_priority(tickets: list[DemoTicket]) -> None:
    trades = Counter((ticket.language, ticket.trade) for ticket in tickets)
    priorities = Counter((ticket.language, ticket.priority) for ticket in tickets)
    assert set(trades) == {(language, trade) for language in LANGUAGES for trade in QUEUES}
    assert min(trades.values()) >= 15
    for language in LANGUAGES:
        for priority in ("low", "medium", "high"):
            assert priorities[language, priority] >= 30


def test_labels_follow_the_rubric(tickets: list[DemoTicket]) -> None:
    for ticket in tickets:
        assert ticket.impact in (1, 2, 3), ticket.id
        assert ticket.urgency in (1, 2, 3), ticket.id
        assert ticket.priority == rubric(ticket.impact, ticket.urgency), ticket.id


def test_texts_fit_the_form(tickets: list[DemoTicket]) -> None:
    for ticket in tickets:
        assert 0 < len(ticket.subject.strip()) <= 200, ticket.id
        assert "\n" not in ticket.subject, ticket.id
        assert ticket.description.strip(), ticket.id
        assert len(ticket.description) <= 20_000, ticket.id


def test_some_are_terse_and_some_are_long(tickets: list[DemoTicket]) -> None:
    for language in LANGUAGES:
        lengths = [len(t.description.split()) for t in tickets if t.language == language]
        assert sum(length <= 30 for length in lengths) >= 5
        assert sum(length >= 100 for length in lengths) >= 5


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("tag", "priorities"),
    [
        ("shouting-trifle", {"low"}),
        ("urgent-newsletter", {"low"}),
        ("calm-outage", {"high"}),
    ],
)
def test_each_language_has_the_hard_ones(
    tickets: list[DemoTicket], language: str, tag: str, priorities: set[str]
) -> None:
    found = [t for t in tickets if t.language == language and tag in t.tags]
    assert len(found) >= 3
    assert {ticket.priority for ticket in found} <= priorities


def test_addresses_lead_nowhere(tickets: list[DemoTicket]) -> None:
    reserved = re.compile(r"[\w.+-]+@(?:[\w-]+\.)*(?:example|example\.(?:com|net|org))")
    for ticket in tickets:
        assert reserved.fullmatch(ticket.requester), ticket.id
        for address in re.findall(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", ticket.description):
            assert reserved.fullmatch(address.rstrip(".")), f"{ticket.id}: {address}"


def test_no_two_are_near_copies(tickets: list[DemoTicket]) -> None:
    sets = {t.id: shingles(f"{t.subject}\n{t.description}") for t in tickets}
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for id_, own in sets.items():
        for shingle in own:
            holders[shingle].append(id_)
    shared = Counter(pair for ids in holders.values() for pair in combinations(sorted(ids), 2))
    near = {
        pair: common / len(sets[pair[0]] | sets[pair[1]])
        for pair, common in shared.items()
        if common / len(sets[pair[0]] | sets[pair[1]]) >= NEAR_COPY
    }
    assert near == {}
