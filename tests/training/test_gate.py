"""Which new version may serve: against the most frequent class and a version that really serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.support.settings import overlay
from ticket_priority.ml.evaluation.scoring import Scored
from ticket_priority.ml.types import LabelledText
from ticket_priority.models import ModelVersion
from ticket_priority.training import gate
from ticket_priority.training.gate import HeldOut, NewVersion, Outcome, Verdict

pytestmark = pytest.mark.django_db


def toy(count: int) -> list[LabelledText]:
    from tests.ml.conftest import toy_rows

    return toy_rows(count, 7)


def held_out(rows: Sequence[LabelledText]) -> HeldOut:
    return HeldOut(rows, "random", majority=0)


def new_version(rows: Sequence[LabelledText], chosen: Sequence[int]) -> NewVersion:
    """Return one that answered so, trained on tickets that were split as the test's were."""
    scored = Scored(
        labels=np.array([row.label for row in rows]),
        chosen=np.array(chosen),
        probabilities=np.eye(3, dtype=np.float32)[list(chosen)],
        groups=[row.group for row in rows],
        languages=[row.language for row in rows],
    )
    return NewVersion("new-1", scored, "random")


def mistaken(rows: Sequence[LabelledText], mistakes: int) -> list[int]:
    """Return the right answers, but for so many."""
    return [(row.label + (place < mistakes)) % 3 for place, row in enumerate(rows)]


def decide(rows: Sequence[LabelledText], chosen: Sequence[int], activate: str) -> Verdict:
    return gate.decide(new_version(rows, chosen), held_out(rows), activate)


class TestWithoutAnActiveVersion:
    def test_what_is_surely_better_than_the_most_frequent_class_serves(self) -> None:
        verdict = decide(toy(60), mistaken(toy(60), 10), "if-better")
        assert verdict.passes
        assert "no version was active; macro_f1 0.8" in verdict.reason
        assert verdict.outcome is Outcome.USEFUL
        assert verdict.over_active is None

    @pytest.mark.parametrize(("asked", "passes"), [("if-better", False), ("always", True)])
    def test_the_most_frequent_class_itself_does_not_unless_it_is_asked_for(
        self, asked: str, passes: bool
    ) -> None:
        verdict = decide(toy(60), [0] * 60, asked)
        assert verdict.passes is passes
        if not passes:
            assert "not shown to be better than the most frequent class alone" in verdict.reason
            assert verdict.reason.endswith("or run activate_priority_model new-1")

    def test_a_gain_that_may_be_chance_is_not_enough(self, settings: Any) -> None:
        """Of nine tickets it gets one more right than the most frequent class does."""
        settings.TICKET_PRIORITY = overlay(
            settings.TICKET_PRIORITY, TRAINING={"GATE_METRIC": "accuracy"}
        )
        rows = sorted(toy(9), key=lambda row: row.label)
        chosen = [*[0] * 8, rows[8].label]
        verdict = decide(rows, chosen, "if-better")
        assert verdict.over_majority is not None
        assert verdict.over_majority.value > 0
        assert not verdict.passes

    def test_without_a_test_there_is_nothing_to_be_better_at(self) -> None:
        assert gate.decide(NewVersion("new-1", None, None), HeldOut(), "if-better").passes


class TestBesideTheActiveVersion:
    def test_the_same_answers_are_no_worse(self, active_model: ModelVersion) -> None:
        rows = toy(60)
        verdict = decide(rows, [row.label for row in rows], "if-better")
        assert verdict.passes
        assert "of toy-1: a difference of +" in verdict.reason
        assert verdict.outcome is Outcome.NO_WORSE
        assert verdict.over_active is not None

    def test_fewer_right_answers_are_worse(self, active_model: ModelVersion) -> None:
        rows = toy(60)
        verdict = decide(rows, mistaken(rows, 12), "if-better")
        assert not verdict.passes
        assert "of toy-1, which stays active: a difference of -0." in verdict.reason
        assert "worse in 100% of resamples" in verdict.reason
        assert verdict.outcome is Outcome.WORSE
        assert "--activate=always" in verdict.reason

    @pytest.mark.parametrize(("tolerance", "passes"), [(0.0, False), (0.01, True)])
    def test_a_difference_within_the_tolerance_is_none(
        self, active_model: ModelVersion, settings: Any, tolerance: float, passes: bool
    ) -> None:
        settings.TICKET_PRIORITY = overlay(
            settings.TICKET_PRIORITY, TRAINING={"GATE_TOLERANCE": tolerance}
        )
        rows = toy(600)
        verdict = decide(rows, mistaken(rows, 1), "if-better")
        assert verdict.over_active is not None
        assert -0.01 < verdict.over_active.value < 0
        assert verdict.passes is passes
        assert ("within 0.01" in verdict.reason) is passes

    def test_no_worse_than_a_version_that_is_of_no_use_is_of_no_use(
        self, active_model: ModelVersion
    ) -> None:
        """All tickets are low, so that nothing can beat the most frequent class."""
        rows = [LabelledText("typo font colour", 0)] * 50
        verdict = decide(rows, [0] * 50, "if-better")
        assert verdict.over_active is not None
        assert verdict.over_active.value == 0
        assert not verdict.passes
        assert "toy-1 stays active all the same: the new version is not shown" in verdict.reason
        assert verdict.outcome is Outcome.NO_WORSE_BUT_USELESS

    def test_a_version_that_cannot_be_run_gives_way(
        self, active_model: ModelVersion, artifact_root: Any
    ) -> None:
        (artifact_root / "toy-1" / "model.onnx").unlink()
        rows = toy(60)
        verdict = decide(rows, mistaken(rows, 12), "if-better")
        assert verdict.passes
        assert "the active version toy-1 cannot be run" in verdict.reason
        assert not decide(rows, [0] * 60, "if-better").passes

    @pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "weighted_kappa"])
    def test_the_metric_of_the_settings_decides(
        self, active_model: ModelVersion, settings: Any, metric: str
    ) -> None:
        settings.TICKET_PRIORITY = overlay(
            settings.TICKET_PRIORITY, TRAINING={"GATE_METRIC": metric}
        )
        verdict = decide(toy(60), mistaken(toy(60), 20), "if-better")
        assert f"{metric} 0." in verdict.reason
        assert not verdict.passes

    def test_what_is_asked_for_serves_and_the_figures_are_said(
        self, active_model: ModelVersion
    ) -> None:
        verdict = decide(toy(60), mistaken(toy(60), 30), "always")
        assert verdict.passes
        assert verdict.reason.startswith("activation was asked for; macro_f1 0.")

    def test_a_version_whose_tickets_were_split_differently_is_not_compared(
        self, active_model: ModelVersion
    ) -> None:
        active_model.dataset = {"split": {"by": "time"}}
        active_model.save()
        rows = toy(60)
        new = new_version(rows, [row.label for row in rows])
        other = NewVersion(new.name, new.scored, "file")
        verdict = gate.decide(other, held_out(rows), "if-better")
        assert (verdict.outcome, verdict.passes) == (Outcome.NOT_COMPARABLE, False)
        assert verdict.reason.startswith(
            "toy-1 stays active: not comparable: toy-1 was trained on tickets that were split "
            "differently. To overrule it"
        )
        assert gate.decide(other, held_out(rows), "always").passes

    def test_comparisons_are_ready_for_json(self, active_model: ModelVersion) -> None:
        compared = decide(toy(60), mistaken(toy(60), 30), "if-better").as_dict()
        assert compared["active"]["difference"] < 0 < compared["majority"]["difference"]
        assert compared["active"]["share_worse"] == 1.0
