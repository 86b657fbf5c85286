from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from helpdesk.demo import labelled_and_open_texts
from ticket_priority.ml.evaluation import robustness
from ticket_priority.ml.evaluation.robustness import (
    MOST_TICKETS,
    PERTURBATIONS,
    PHRASES,
    measure,
    perturbed,
)
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.text.normalisation import MAX_CHARACTERS, normalise
from ticket_priority.ml.types import Classification, LabelledText
from ticket_priority.starter.install import STARTER_DIRECTORY
from ticket_priority.training.dataset import assemble

TEXT = "The printer is down.\nNobody on the second floor can print invoices. Since 9 a.m."
ROW = LabelledText(TEXT, 1, language="en")
LOW, HIGH = (0.7, 0.2, 0.1), (0.1, 0.2, 0.7)


class Rule:
    """A classifier that says High where a function says so, and remembers what it was asked."""

    def __init__(self, is_high: Callable[[str], bool]) -> None:
        self.is_high = is_high
        self.asked: list[str] = []

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        self.asked += texts
        return [Classification(HIGH if self.is_high(text) else LOW) for text in texts]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_rewritten_text_is_normalised_and_the_same_each_time(name: str) -> None:
    for language in (*PHRASES, "", "xx", "pt-BR"):
        row = LabelledText(TEXT, 1, language=language)
        text = perturbed(row, name)
        assert text == normalise(text) == perturbed(row, name)
        assert (text == TEXT) == (name in ("whitespace", "html"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shouting", TEXT.upper()),
        (
            "exclamation_marks",
            "The printer is down!!!\n"
            "Nobody on the second floor can print invoices!!! Since 9 a.m!!!!!!",
        ),
        ("urgent_first", f"URGENT!!! {TEXT}"),
        ("plea", f"{TEXT}\nPlease treat this as top priority, my boss is watching."),
        (
            "typos",
            "The prniter is down.\nNobody on the second floor can print invoices. Since 9 a.m.",
        ),
    ],
)
def test_what_is_rewritten(name: str, expected: str) -> None:
    assert perturbed(ROW, name) == expected


def test_a_language_has_phrases_of_its_own() -> None:
    german = LabelledText(TEXT, 1, language="de-AT")
    assert perturbed(german, "urgent_first") == f"DRINGEND!!! {TEXT}"
    assert perturbed(LabelledText(TEXT, 1, language="nl"), "urgent_first").startswith("URGENT!!!")


def test_a_classifier_that_is_not_moved() -> None:
    found = measure(Rule(lambda text: "printer" in text.lower()), [ROW, ROW])
    still = {"kept": 1.0, "raised": 0.0, "shift": 0.0}
    assert found["n"] == 2
    assert found["by_perturbation"]["plea"] == found["by_perturbation"]["shouting"] == still


def test_a_classifier_that_listens_to_shouting() -> None:
    found = measure(Rule(str.isupper), [ROW, LabelledText("ALL CAPS", 0)])
    shouted = found["by_perturbation"]["shouting"]
    assert shouted == {"kept": 0.5, "raised": 0.5, "shift": pytest.approx(0.6)}
    pleaded = found["by_perturbation"]["plea"]
    assert pleaded == {"kept": 0.5, "raised": 0.0, "shift": pytest.approx(0.6)}
    kept = [line["kept"] for line in found["by_perturbation"].values()]
    assert found["overall"]["kept"] == pytest.approx(sum(kept) / len(kept))


def test_costs_decide_which_class_is_chosen() -> None:
    """Where High is cheap to choose, it is chosen always, and nothing moves."""
    costs = ((0.0, 1.0, 0.1), (1.0, 0.0, 0.1), (9.0, 9.0, 0.0))
    found = measure(Rule(str.isupper), [ROW], costs)
    assert found["overall"]["kept"] == 1.0
    assert found["overall"]["shift"] > 0


def test_few_tickets_stand_for_many() -> None:
    rows = [LabelledText(f"Ticket {number} about printing", 0) for number in range(1000)]
    rule = Rule(lambda text: False)
    assert measure(rule, rows)["n"] == MOST_TICKETS
    asked = [row for row in rows if row.text in rule.asked]
    assert len(asked) == MOST_TICKETS
    assert len({rows.index(row) // 100 for row in asked}) == 10, "from all over the test"
    assert len(rule.asked) == MOST_TICKETS * (len(PERTURBATIONS) - 1), "none is asked twice"


def test_a_slow_model_is_measured_on_fewer() -> None:
    rows = [LabelledText(f"Ticket {number} about printing", 0) for number in range(100)]
    assert measure(Rule(bool), rows, most_seconds=0)["n"] == 10
    assert measure(Rule(bool), rows[:3], most_seconds=0)["n"] == 3


def test_a_text_that_is_as_long_as_can_be_is_rewritten_too() -> None:
    row = LabelledText(normalise("word. " * MAX_CHARACTERS), 0)
    assert all(len(perturbed(row, name)) <= MAX_CHARACTERS for name in PERTURBATIONS)


def test_no_row_is_named() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        measure(Rule(bool), [])


@pytest.fixture(scope="module")
def starter_figures() -> dict[str, Any]:
    """The linear starter on the demo tickets that it has never seen."""
    labelled, still_open = labelled_and_open_texts()
    unseen = [*assemble(labelled).test, *still_open]
    return robustness.measure(LinearClassifier(STARTER_DIRECTORY), unseen, most_seconds=math.inf)


class TestTheBound:
    """What docs/hostile-input.md promises of the linear starter."""

    @pytest.mark.parametrize("name", ["shouting", "whitespace", "html"])
    def test_what_does_not_move_it(self, starter_figures: dict[str, Any], name: str) -> None:
        found = starter_figures["by_perturbation"][name]
        assert found["kept"] == 1.0
        assert found["shift"] < 0.01

    @pytest.mark.parametrize("name", ["exclamation_marks", "urgent_first", "urgent_last", "plea"])
    def test_asking_for_a_higher_priority_gives_it_to_one_ticket_in_fifty_at_most(
        self, starter_figures: dict[str, Any], name: str
    ) -> None:
        assert starter_figures["by_perturbation"][name]["raised"] <= 0.02

    def test_no_manner_raises_more_than_three_in_twenty(
        self, starter_figures: dict[str, Any]
    ) -> None:
        raised = [line["raised"] for line in starter_figures["by_perturbation"].values()]
        assert max(raised) <= 0.15
        assert starter_figures["overall"]["raised"] <= 0.05
        assert starter_figures["overall"]["kept"] >= 0.8
