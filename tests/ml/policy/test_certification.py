from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from tests.support.classifiers import KnownClassifier, known_probabilities, known_text
from ticket_priority.ml.policy import certification
from ticket_priority.ml.policy.certification import (
    MIN_ROWS,
    Answers,
    certificates_of,
    certify,
    interval,
    lower_bound,
    thresholds,
)
from ticket_priority.ml.policy.rule import Certificate, choose, read_costs
from ticket_priority.ml.types import LabelledText

COSTS = read_costs(
    {
        "low": {"medium": 1, "high": 2},
        "medium": {"low": 2, "high": 1},
        "high": {"low": 9, "medium": 4},
    }
)


def answers(
    rows: int, hits: int, *, confidence: float = 0.9, language: str = "", chosen: int = 2
) -> Answers:
    return Answers(
        chosen=np.full(rows, chosen, dtype=np.int8),
        confidence=np.full(rows, confidence),
        is_right=np.arange(rows) < hits,
        languages=np.full(rows, language),
    )


def joined(*parts: Answers) -> Answers:
    return Answers(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("chosen", "confidence", "is_right", "languages")
        )
    )


def sample(chance: np.random.Generator, rows: int, precision: Any) -> Answers:
    """Draw answers of one class whose true precision at each confidence is known."""
    confidence = chance.uniform(0.4, 1, rows)
    return Answers(
        chosen=np.full(rows, 2, dtype=np.int8),
        confidence=confidence,
        is_right=chance.random(rows) < precision(confidence),
        languages=np.full(rows, "", dtype=np.str_),
    )


def true_precision(threshold: float, precision: Any) -> float:
    """Return the mean over the confidences from the threshold on, which are drawn evenly."""
    return float(np.mean(precision(np.linspace(max(threshold, 0.4), 1, 2001))))


class TestBounds:
    @pytest.mark.parametrize(("hits", "rows"), [(1, 1), (45, 50), (50, 50), (3, 400)])
    def test_the_lower_bound_is_clopper_and_pearsons(self, hits: int, rows: int) -> None:
        bound = float(lower_bound(hits, rows))
        # As many hits or more are seen in 5% of the cases where the share is the bound.
        assert binom.sf(hits - 1, rows, bound) == pytest.approx(0.05)

    def test_no_hits_bound_nothing(self) -> None:
        assert lower_bound([0, 0, 5], [0, 9, 5]).tolist() == [
            0.0,
            0.0,
            pytest.approx(0.5493, abs=1e-4),
        ]

    @pytest.mark.parametrize(("hits", "rows"), [(0, 20), (7, 20), (20, 20)])
    def test_the_interval_holds_the_share(self, hits: int, rows: int) -> None:
        low, high = interval(hits, rows)
        assert 0 <= low <= hits / rows <= high <= 1
        if 0 < hits < rows:
            assert binom.sf(hits - 1, rows, low) == pytest.approx(0.025)
            assert binom.cdf(hits, rows, high) == pytest.approx(0.025)


class TestThresholds:
    def test_they_go_from_strict_to_loose_and_stay_where_the_target_is_reached(self) -> None:
        validation = joined(
            *(answers(40, hits, confidence=c) for c, hits in ((0.95, 40), (0.8, 38), (0.6, 20)))
        )
        assert thresholds(validation, 0.9) == [0.95, 0.8]

    def test_an_answer_is_not_shut_out_by_its_own_threshold(self) -> None:
        certain = answers(60, 60, confidence=0.999999)
        (threshold,) = thresholds(certain, 0.9)
        assert threshold == 0.9999

    def test_there_is_always_one_to_try_and_never_many(self) -> None:
        assert thresholds(answers(60, 6), 0.9) == [0.9]
        chance = np.random.default_rng(1)
        many = sample(chance, 5000, lambda confidence: confidence)
        found = thresholds(many, 0.8)
        assert len(found) == certification.STEPS
        assert found == sorted(found, reverse=True)


class TestCertificates:
    def test_what_is_right_often_enough_is_certified_from_where_on_it_is(self) -> None:
        validation = joined(answers(200, 196, confidence=0.9), answers(200, 150, confidence=0.6))
        (found,) = certificates_of("high", 0.9, validation, validation)
        assert found.holds
        assert (found.priority, found.language, found.threshold, found.rows) == (
            "high",
            "",
            0.9,
            200,
        )
        assert found.precision == 0.98
        assert found.lower_bound == pytest.approx(float(lower_bound(196, 200)))
        assert found.coverage == 0.5
        assert found.reason == ""

    def test_too_few_rows_certify_nothing(self) -> None:
        enough, few = answers(MIN_ROWS, MIN_ROWS), answers(MIN_ROWS - 1, MIN_ROWS - 1)
        for validation, test in ((few, enough), (enough, few)):
            (found,) = certificates_of("high", 0.9, validation, test)
            assert not found.holds
            assert found.reason.startswith("too few answers")
        (found,) = certificates_of("high", 0.9, enough, enough)
        assert found.holds

    def test_what_validation_flatters_is_found_out_by_the_test(self) -> None:
        (found,) = certificates_of("high", 0.9, answers(200, 200), answers(200, 170))
        assert not found.holds
        assert found.lower_bound is not None
        assert f"as low as {found.lower_bound:.3f}" in found.reason

    def test_another_class_counts_for_nothing(self) -> None:
        right = answers(200, 200)
        for validation in (answers(200, 200, chosen=1), answers(0, 0)):
            (found,) = certificates_of("high", 0.9, validation, right)
            assert not found.holds

    def test_a_language_stands_for_itself_and_the_others_stand_together(self) -> None:
        both = joined(
            answers(100, 100, language="de"),
            answers(100, 60, language="en"),
            answers(40, 40, language="fr"),
            answers(40, 40, language=""),
        )
        found = {row.language: row for row in certificates_of("high", 0.9, both, both)}
        assert set(found) == {"de", "en", ""}
        assert found["de"].holds
        assert not found["en"].holds
        assert found[""].holds
        assert found[""].languages == ("", "fr")
        assert (found[""].rows, found["de"].rows) == (80, 100)

    def test_too_few_others_are_not_certified(self) -> None:
        both = joined(answers(100, 100, language="de"), answers(9, 9, language="fr"))
        found = {row.language: row for row in certificates_of("high", 0.9, both, both)}
        assert found["de"].holds
        assert not found[""].holds


class TestOnRows:
    def rows(self, count: int, seed: int) -> list[LabelledText]:
        """Draw texts, and their labels by the very probabilities that the classifier will give."""
        chance = random.Random(seed)  # noqa: S311
        found = []
        for number in range(count):
            text = known_text(chance)
            (label,) = chance.choices((0, 1, 2), known_probabilities(text))
            found.append(LabelledText(text, label, group=str(number)))
        return found

    @pytest.mark.parametrize("costs", [None, COSTS])
    def test_answers_are_judged_as_they_are_decided(self, costs: Any) -> None:
        rows = self.rows(300, 1)
        found = Answers.of(KnownClassifier(), rows, costs)
        decided = [choose(one, costs) for one in KnownClassifier().classify([r.text for r in rows])]
        assert found.chosen.tolist() == [one.priority for one in decided]
        assert found.confidence.tolist() == [one.confidence for one in decided]
        pairs = zip(decided, rows, strict=True)
        assert found.is_right.tolist() == [one.priority == row.label for one, row in pairs]

    def test_near_copies_count_once_and_rows_without_a_group_each(self) -> None:
        first, *_others = self.rows(3, 1)
        copies = [replace(first, group="copies") for _ in range(5)]
        alone = [replace(first, group="") for _ in range(4)]
        assert len(Answers.of(KnownClassifier(), [*copies, *alone])) == 5

    def test_certificates_come_for_each_class_that_is_asked_for(self) -> None:
        found = certify(
            KnownClassifier(),
            self.rows(1500, 2),
            self.rows(1500, 3),
            targets={"medium": 0.75, "high": 0.85},
            costs=None,
        )
        assert [row.priority for row in found.holding] == ["medium", "high"]
        for row in found.holding:
            assert row.lower_bound is not None
            assert row.lower_bound >= row.target
            assert 0.1 < row.coverage < 1


class TestSimulation:
    """True probabilities are known here, so it is known which certificates should not be."""

    resamples = 400

    def certified(self, precision: Any, target: float, rows: int, seed: int) -> list[Certificate]:
        chance = np.random.default_rng(seed)
        return [
            certificates_of(
                "high", target, sample(chance, rows, precision), sample(chance, rows, precision)
            )[0]
            for _ in range(self.resamples)
        ]

    @pytest.mark.parametrize(
        ("name", "precision", "rows"),
        [
            # The worst there is: just below the target, however sure the answer.
            ("flat", lambda confidence: np.full_like(confidence, 0.799), 300),
            ("calibrated", lambda confidence: confidence, 300),
            ("overconfident", lambda confidence: confidence - 0.12, 300),
            # The surest answers are the worst: a strict threshold is no safe start.
            ("upside down", lambda confidence: 1.19 - 0.5 * confidence, 300),
            ("few rows", lambda confidence: confidence, 60),
        ],
    )
    def test_a_certified_precision_holds_in_95_of_100_resamples(
        self, name: str, precision: Any, rows: int
    ) -> None:
        found = self.certified(precision, 0.8, rows, seed=20)
        wrong = [
            row
            for row in found
            if row.holds
            and row.threshold is not None
            and true_precision(row.threshold, precision) < row.target
        ]
        assert len(wrong) / self.resamples <= 0.05

    def test_what_can_be_certified_mostly_is(self) -> None:
        found = self.certified(lambda confidence: confidence, 0.8, 400, seed=3)
        holding = [row for row in found if row.holds]
        assert len(holding) / self.resamples > 0.95
        # 0.8 is reached from 0.6 on, which is two thirds of the answers.
        assert 0.4 < np.mean([row.coverage for row in holding]) < 0.67


def test_it_needs_no_django() -> None:
    code = """
import sys
sys.modules["django"] = None
import ticket_priority.ml.policy.certification
print("ok")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.strip() == "ok", result.stderr


def test_what_is_missing_is_named() -> None:
    code = "import sys; sys.modules['scipy'] = None; import ticket_priority.ml.policy.certification"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "[ml]" in result.stderr
