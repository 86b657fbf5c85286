from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

import ticket_priority
from helpdesk.models import Ticket
from tests.predictions.test_on_save import INVOICE, OUTAGE, TYPO, only_prediction
from ticket_priority.classifiers import get_classifier
from ticket_priority.classifiers.loading import _warn_uncertified
from ticket_priority.exceptions import ModelUnavailableError
from ticket_priority.ml.policy.rule import (
    METRICS_KEY,
    Certificate,
    Certification,
    DecisionRule,
    choose,
    read_costs,
    read_targets,
)
from ticket_priority.ml.types import CLASS_NAMES, Classification
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.predictions.standings import open_suggestions
from ticket_priority.priorities import Priority

State, Reason = Prediction.State, Prediction.Reason

COSTS = {
    "low": {"medium": 1, "high": 2},
    "medium": {"low": 2, "high": 1},
    "high": {"low": 9, "medium": 4},
}
EQUAL = {true: {name: 1 for name in CLASS_NAMES if name != true} for true in CLASS_NAMES}
CHEAP_LOW = {
    "low": {"medium": 1000, "high": 1000},
    "medium": {"low": 0, "high": 1000},
    "high": {"low": 0, "medium": 1000},
}

Probabilities = st.tuples(*[st.floats(0.001, 1)] * 3).map(
    lambda parts: tuple(part / math.fsum(parts) for part in parts)
)


def certificate(priority: str = "high", **values: Any) -> Certificate:
    given: dict[str, Any] = {
        "language": "",
        "languages": ("", "en"),
        "target": 0.9,
        "threshold": 0.5,
        "rows": 100,
        "precision": 0.97,
        "lower_bound": 0.92,
        "coverage": 0.6,
        "holds": True,
    }
    return Certificate(priority=priority, **{**given, **values})


def certify(version: ModelVersion, *certificates: Certificate, **settings: Any) -> None:
    found = Certification(
        read_targets(settings.get("AUTO_APPLY")) or {},
        read_costs(settings.get("COSTS")),
        certificates,
    )
    version.metrics = {**version.metrics, METRICS_KEY: found.as_dict()}
    version.save()


class TestCosts:
    def test_the_class_of_least_expected_cost_is_chosen(self) -> None:
        answer = Classification((0.5, 0.2, 0.3))
        assert answer.label == "low"
        decided = choose(answer, read_costs(COSTS))
        # low: 0.2 x 2 + 0.3 x 9 = 3.1; medium: 0.5 + 0.3 x 4 = 1.7; high: 0.5 x 2 + 0.2 = 1.2
        assert (decided.label, decided.confidence) == ("high", 0.3)
        assert decided.probabilities == answer.probabilities

    def test_on_a_tie_the_higher_priority_is_chosen(self) -> None:
        assert choose(Classification((0.1 + 0.2, 0.4, 0.3)), read_costs(CHEAP_TIE)).label == "high"

    @given(Probabilities)
    def test_errors_of_one_price_leave_the_most_probable_class(
        self, probabilities: tuple[float, ...]
    ) -> None:
        answer = Classification(probabilities)
        chosen = choose(answer, read_costs(EQUAL))
        assert chosen.confidence == pytest.approx(answer.confidence)
        assert choose(answer, None) is answer

    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            (3, "no dictionary"),
            ({"high": {"low": 1, "medium": 1}}, "tickets that are low"),
            ({**EQUAL, "urgent": {}}, "no class 'urgent'"),
            ({**EQUAL, "low": {"medium": 1, "high": 1, "urgent": 1}}, "no class 'urgent'"),
            ({**EQUAL, "low": {"medium": 1}}, "lacks the cost of choosing high for what is low"),
            ({**EQUAL, "low": {"low": 1, "medium": 1, "high": 1}}, "must cost 0"),
            ({**EQUAL, "low": {"medium": -1, "high": 1}}, "is -1"),
            ({**EQUAL, "low": {"medium": "1", "high": 1}}, "is '1'"),
            ({**EQUAL, "low": {"medium": math.inf, "high": 1}}, "is inf"),
            ({**EQUAL, "low": {"medium": True, "high": 1}}, "is True"),
        ],
    )
    def test_what_is_wrong_with_costs_is_named(self, given: Any, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            read_costs(given)

    @pytest.mark.parametrize(
        "given", ["high", ["high"], {"urgent": 0.9}, {"high": 1}, {"high": 0}, {"high": "0.9"}]
    )
    def test_impossible_targets_are_refused(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"dictionary|class|precision"):
            read_targets(given)


CHEAP_TIE = {
    "low": {"medium": 1, "high": 1},
    "medium": {"low": 1, "high": 0},
    "high": {"low": 1, "medium": 0},
}


class TestRule:
    def test_certificates_survive_the_database(self) -> None:
        found = Certification({"high": 0.9}, read_costs(COSTS), (certificate(),))
        assert Certification.read({METRICS_KEY: found.as_dict()}) == found

    @pytest.mark.parametrize(
        "metrics",
        [
            None,
            [],
            {},
            {METRICS_KEY: None},
            {METRICS_KEY: {"targets": None, "costs": None, "certificates": []}},
            {METRICS_KEY: {"targets": {"high": 0.9}, "costs": 3, "certificates": []}},
            {METRICS_KEY: {"targets": {"high": 0.9}, "costs": None, "certificates": [{}]}},
            {METRICS_KEY: {"targets": {"high": 0.9}, "costs": None, "certificates": 3}},
        ],
    )
    def test_odd_metrics_certify_nothing(self, metrics: Any) -> None:
        rule = DecisionRule.of(metrics, costs=None, targets={"high": 0.9})
        assert rule.lacks_certificates
        assert not rule.applies(Classification((0.0, 0.0, 1.0)), "")

    @pytest.mark.parametrize(
        ("certificates", "language", "expected"),
        [
            ([certificate()], "en", True),
            ([certificate()], "", True),
            ([certificate(threshold=0.8)], "en", True),
            ([certificate(threshold=0.81)], "en", False),
            ([certificate(holds=False, reason="too few")], "en", False),
            ([certificate("medium")], "en", False),
            # A language that nobody has tested is in no certificate.
            ([certificate()], "fi", False),
            # One that stands for itself is not helped by the others.
            (
                [certificate(language="de", languages=("de",), holds=False), certificate()],
                "de",
                False,
            ),
            ([], "en", False),
        ],
    )
    def test_what_is_certified_applies(
        self, certificates: list[Certificate], language: str, expected: bool
    ) -> None:
        found = Certification({"high": 0.9}, None, tuple(certificates))
        rule = DecisionRule(targets={"high": 0.9}, certification=found)
        assert rule.applies(Classification((0.1, 0.1, 0.8)), language) is expected

    @pytest.mark.parametrize(
        ("costs", "targets"), [(None, {"high": 0.8}), (COSTS, {"high": 0.9}), (None, {})]
    )
    def test_certificates_for_other_settings_count_as_none(self, costs: Any, targets: Any) -> None:
        found = Certification({"high": 0.9}, None, (certificate(),))
        rule = DecisionRule.of({METRICS_KEY: found.as_dict()}, costs=costs, targets=targets)
        assert rule.lacks_certificates

    def test_without_targets_everything_applies(self) -> None:
        assert DecisionRule().applies(Classification((0.3, 0.3, 0.4)), "fi")


@pytest.mark.django_db
class TestCostsAtWork:
    def test_every_road_follows_the_costs(
        self, active_model: ModelVersion, configure: Callable[..., None], admin_client: Client
    ) -> None:
        configure(DECISIONS={"COSTS": CHEAP_LOW})
        sync = Ticket.objects.create(**OUTAGE)
        assert sync.priority == Priority.LOW
        prediction = only_prediction(sync)
        assert prediction.priority == Priority.LOW
        assert prediction.confidence == prediction.prob_low
        assert prediction.prob_high is not None
        assert prediction.prob_high > 0.5
        configure(MODE="async")
        later = Ticket.objects.create(**OUTAGE)
        outbox.drain()
        later.refresh_from_db()
        assert later.priority == Priority.LOW
        with ticket_priority.muted():
            old = Ticket.objects.create(**OUTAGE)
        assert classify_instances([old])[0].priority == Priority.LOW
        (answer,) = ticket_priority.classify(["outage fire breach down"])
        assert answer.label == "low"
        said = admin_client.post(
            "/api/predict/", {"text": "outage fire"}, content_type="application/json"
        ).json()
        assert (said["priority"], said["priority_id"]) == ("low", 0)
        assert said["confidence"] == said["probabilities"]["low"]

    def test_costs_that_are_wrong_decide_nothing(
        self, active_model: ModelVersion, configure: Callable[..., None]
    ) -> None:
        configure(DECISIONS={"COSTS": {"high": {}}})
        ticket = Ticket.objects.create(**OUTAGE)
        assert ticket.priority is None
        assert only_prediction(ticket).state == State.PENDING
        with pytest.raises(ModelUnavailableError, match="COSTS is wrong"):
            get_classifier()
        configure(DECISIONS={"COSTS": None})
        outbox.drain()
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH


@pytest.mark.django_db
class TestAutoApply:
    targets = {"high": 0.9}

    @pytest.fixture(params=["sync", "async", "again"])
    def make(self, request: pytest.FixtureRequest, configure: Callable[..., None]) -> Any:
        """Return a maker of tickets that are classified on each of the paths."""
        if request.param == "async":
            configure(MODE="async")

        def make(**fields: str) -> Ticket:
            if request.param == "again":
                with ticket_priority.muted():
                    ticket = Ticket.objects.create(**fields)
                classify_instances([ticket])
            else:
                ticket = Ticket.objects.create(**fields)
                outbox.drain()
            return Ticket.objects.get(pk=ticket.pk)

        return make

    def test_only_what_is_certified_is_applied(
        self, active_model: ModelVersion, configure: Callable[..., None], make: Any
    ) -> None:
        configure(DECISIONS={"AUTO_APPLY": self.targets})
        certify(active_model, certificate(), AUTO_APPLY=self.targets)
        applied, other_class = make(**OUTAGE, language="en"), make(**INVOICE, language="en")
        other_language = make(**OUTAGE, language="fi")
        assert applied.priority == Priority.HIGH
        assert only_prediction(applied).state == State.APPLIED
        for ticket in (other_class, other_language):
            assert ticket.priority is None
            prediction = only_prediction(ticket)
            assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.UNCERTIFIED)
            assert open_suggestions([ticket]) == {str(ticket.pk): prediction}

    def test_new_certificates_count_without_a_restart(
        self, active_model: ModelVersion, configure: Callable[..., None]
    ) -> None:
        configure(DECISIONS={"AUTO_APPLY": self.targets})
        assert Ticket.objects.create(**OUTAGE).priority is None
        certify(active_model, certificate(), AUTO_APPLY=self.targets)
        assert Ticket.objects.create(**OUTAGE).priority == Priority.HIGH

    def test_a_version_without_certificates_suggests_and_the_log_says_what_to_do(
        self,
        active_model: ModelVersion,
        configure: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        _warn_uncertified.cache_clear()
        certify(active_model, certificate(), AUTO_APPLY={"high": 0.8})
        configure(DECISIONS={"AUTO_APPLY": self.targets})
        for _ in range(2):
            assert Ticket.objects.create(**OUTAGE).priority is None
        (record,) = [line for line in caplog.messages if "certif" in line]
        assert active_model.name in record
        assert "manage.py certify_priority_model" in record

    def test_a_language_that_cannot_be_read_keeps_no_other_ticket_waiting(
        self,
        active_model: ModelVersion,
        configure: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        configure(DECISIONS={"AUTO_APPLY": self.targets}, MODE="async")
        certify(active_model, certificate(), AUTO_APPLY=self.targets)
        broken, sound = (Ticket.objects.create(**OUTAGE, language=code) for code in ("xx", "en"))
        read = type(ticket_priority.sources.registry.get_source(Ticket)).language_of

        def language_of(source: Any, ticket: Any) -> str:
            if ticket.pk == broken.pk:
                raise RuntimeError("no such language")
            return read(source, ticket)

        monkeypatch.setattr("ticket_priority.sources.base.TicketSource.language_of", language_of)
        outbox.drain()
        sound.refresh_from_db()
        assert sound.priority == Priority.HIGH
        assert only_prediction(broken).state != State.APPLIED

    def test_a_suggestion_that_nobody_followed_is_no_label(
        self, active_model: ModelVersion, configure: Callable[..., None]
    ) -> None:
        from tests.training.test_dataset import labels

        configure(DECISIONS={"AUTO_APPLY": self.targets})
        followed, overruled, _left = (Ticket.objects.create(**OUTAGE) for _ in range(3))
        Ticket.objects.filter(pk=followed.pk).update(priority=2, description="followed")
        ticket_priority.override(overruled, Priority.LOW)
        Ticket.objects.filter(pk=overruled.pk).update(description="overruled")
        assert labels() == {"outage\nfollowed": 2, "outage\noverruled": 0}

    def test_the_admin_and_the_api_show_the_suggestion_and_why(
        self, active_model: ModelVersion, configure: Callable[..., None], admin_client: Client
    ) -> None:
        configure(DECISIONS={"AUTO_APPLY": self.targets})
        ticket = Ticket.objects.create(**TYPO)
        page = admin_client.get(f"/admin/helpdesk/ticket/{ticket.pk}/change/").content.decode()
        assert "below the certified precision" in page
        assert "Accept Low" in page
        shown = admin_client.get(f"/api/tickets/helpdesk.Ticket/{ticket.pk}/").json()
        assert shown["priority"] is None
        assert shown["prediction"]["state"] == "suggested"
        assert shown["prediction"]["reason"] == "uncertified"
        assert shown["prediction"]["priority"] == "low"

    def test_suggest_mode_needs_no_certificate(
        self, active_model: ModelVersion, configure: Callable[..., None]
    ) -> None:
        configure(DECISIONS={"AUTO_APPLY": self.targets}, MODE="suggest")
        ticket = Ticket.objects.create(**OUTAGE)
        outbox.drain()
        prediction = only_prediction(ticket)
        assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.OK)
