from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

import ticket_priority
from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, only_prediction
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import audit, outbox
from ticket_priority.predictions.reclassify import backfill, classify_instances
from ticket_priority.predictions.standings import open_suggestions, standings
from ticket_priority.priorities import Priority
from ticket_priority.reports.audit import audit_agreement
from ticket_priority.signals import priority_predicted
from ticket_priority.sources.registry import get_source, register
from ticket_priority.training.labels import labelled_texts

pytestmark = pytest.mark.django_db

State, Reason = Prediction.State, Prediction.Reason

Configure = Callable[..., None]


class Coin:
    """A draw that always falls in, or always out."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> None:
    """Draw every new ticket."""
    configure(DECISIONS={"AUDIT_SHARE": 0.1})
    monkeypatch.setattr(audit, "_chance", Coin(0.0999))


@pytest.fixture(params=["sync", "async", "suggest"])
def mode(request: pytest.FixtureRequest, configure: Configure) -> str:
    configure(MODE=request.param)
    return str(request.param)


def labels() -> dict[str, tuple[int, str]]:
    rows = labelled_texts(get_source(Ticket))
    return {row.text: (row.label, row.provenance) for row in rows}


def ticket_in_slice() -> Ticket:
    ticket = Ticket.objects.create(**OUTAGE)
    outbox.drain()
    return Ticket.objects.get(pk=ticket.pk)


def test_about_the_share_of_new_tickets_is_drawn(configure: Configure) -> None:
    configure(DECISIONS={"AUDIT_SHARE": 0.2})
    drawn = Counter(audit.draw("sync") for _ in range(3000))
    assert 450 < drawn["audit"] < 750
    configure(DECISIONS={"AUDIT_SHARE": 0.0})
    assert {audit.draw("async") for _ in range(100)} == {"async"}
    configure(DECISIONS={"AUDIT_SHARE": "much"})
    assert audit.draw("async") == "async"


def test_who_is_not_drawn_is_served(
    active_model: ModelVersion, drawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_chance", Coin(0.1))
    assert Ticket.objects.create(**OUTAGE).priority == Priority.HIGH


def test_a_drawn_ticket_is_classified_and_left_alone(
    active_model: ModelVersion, drawn: None, mode: str
) -> None:
    told: list[Any] = []
    priority_predicted.connect(told.append, weak=False, dispatch_uid="audit")
    try:
        ticket = ticket_in_slice()
    finally:
        priority_predicted.disconnect(dispatch_uid="audit")
    assert ticket.priority is None
    prediction = only_prediction(ticket)
    assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.AUDIT)
    assert (prediction.priority, prediction.model_version) == (Priority.HIGH, active_model)
    assert told == []
    assert open_suggestions([ticket]) == {}
    assert standings([ticket]) == {}


def test_the_draw_outlives_a_model_that_is_not_there(
    toy_version: ModelVersion, drawn: None, fresh_classifier: None
) -> None:
    ticket = ticket_in_slice()
    assert only_prediction(ticket).reason == Reason.NO_MODEL
    toy_version.activate()
    outbox.drain()
    ticket.refresh_from_db()
    assert ticket.priority is None
    assert only_prediction(ticket).reason == Reason.AUDIT


def test_the_draw_outlives_a_model_that_fails(
    active_model: ModelVersion, drawn: None, configure: Configure, settings: Any
) -> None:
    served = {"transformer": "tests.support.classifiers.PoisonableClassifier"}
    configure(SERVING={"CLASSIFIERS": served}, MODE="async", QUEUE={"MAX_ATTEMPTS": 1})
    ticket = Ticket.objects.create(subject="outage poison")
    outbox.drain()
    Prediction.objects.update(claim="", claimed_at=None)
    outbox.drain()
    assert only_prediction(ticket).state == State.FAILED
    Ticket.objects.update(subject="outage")
    assert outbox.retry(Prediction.objects.all()) == (1, 0)
    outbox.drain()
    ticket.refresh_from_db()
    assert (ticket.priority, only_prediction(ticket).reason) == (None, Reason.AUDIT)


def test_asking_again_keeps_it_held_back(
    active_model: ModelVersion, drawn: None, admin_client: Client
) -> None:
    ticket = ticket_in_slice()
    (prediction,) = classify_instances([ticket])
    assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.AUDIT)
    said = admin_client.post(f"/api/tickets/helpdesk.Ticket/{ticket.pk}/classify/").json()
    hidden = ("priority", "priority_id", "confidence", "probabilities")
    assert {said[name] for name in hidden} == {None}
    page = admin_client.post(
        f"/admin/helpdesk/ticket/{ticket.pk}/priority/classify/", follow=True
    ).content.decode()
    assert "The prediction is held back to check the model." in page
    assert "The model says" not in page
    (batch,) = backfill(get_source(Ticket))
    assert batch[0]["skipped"] == 1
    ticket.refresh_from_db()
    assert ticket.priority is None
    # Once a person has decided, the slice is over.
    ticket_priority.override(ticket, Priority.LOW)
    (prediction,) = classify_instances([ticket])
    assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.PERSON_DECIDED)


def test_old_tickets_are_not_drawn(active_model: ModelVersion, drawn: None) -> None:
    with ticket_priority.muted():
        ticket = Ticket.objects.create(**OUTAGE)
    classify_instances([ticket])
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH


class TestShown:
    """What agents see of it, before a person has set the priority and after."""

    def test_the_admin_hides_it_until_a_person_decides(
        self, active_model: ModelVersion, drawn: None, admin_client: Client
    ) -> None:
        ticket = ticket_in_slice()
        prediction = only_prediction(ticket)
        listing, change = "/admin/helpdesk/ticket/", f"/admin/helpdesk/ticket/{ticket.pk}/change/"
        predictions = "/admin/ticket_priority/prediction/"
        page = admin_client.get(change).content.decode()
        assert "held back to check the model" in page
        for word in ("tp-bars", "tp-badge--high", "Accept", "tp-history"):
            assert word not in page, word
        page = admin_client.get(listing).content.decode()
        assert "tp-state--suggested" not in page
        for query, found in (("suggested", 0), ("none", 1)):
            page = admin_client.get(f"{listing}?ticket_priority_state={query}").content.decode()
            assert page.count("field-ticket_priority_prediction") == found, query
        Prediction.objects.update(confidence=0.4)
        page = admin_client.get(f"{listing}?ticket_priority_confidence=low").content.decode()
        assert "field-ticket_priority_prediction" not in page
        assert "0 predictions" in admin_client.get(predictions).content.decode()
        assert admin_client.get(f"{predictions}{prediction.pk}/change/").status_code == 302
        ticket_priority.override(ticket, Priority.MEDIUM)
        page = admin_client.get(change).content.decode()
        for word in ("tp-bars", "tp-badge--high", "held back to check the model"):
            assert word in page, word
        assert "Accept" not in page
        assert "tp-state--suggested" in admin_client.get(listing).content.decode()
        assert "1 prediction" in admin_client.get(predictions).content.decode()

    def test_the_api_hides_it_until_a_person_decides(
        self, active_model: ModelVersion, drawn: None, admin_client: Client
    ) -> None:
        ticket = ticket_in_slice()
        row = f"/api/predictions/{only_prediction(ticket).pk}/"
        about = f"/api/tickets/helpdesk.Ticket/{ticket.pk}/"
        assert admin_client.get("/api/predictions/").json()["count"] == 0
        assert admin_client.get("/api/predictions/?priority=high").json()["count"] == 0
        assert admin_client.get(row).status_code == 404
        assert admin_client.get(about).json()["prediction"] is None
        ticket_priority.override(ticket, Priority.HIGH)
        assert admin_client.get("/api/predictions/").json()["count"] == 1
        assert admin_client.get(row).json()["priority"] == "high"
        assert admin_client.get(about).json()["prediction"]["reason"] == "audit"

    def test_a_priority_that_is_set_without_a_record_reveals_nothing(
        self, active_model: ModelVersion, drawn: None, admin_client: Client
    ) -> None:
        ticket = ticket_in_slice()
        about = f"/api/tickets/helpdesk.Ticket/{ticket.pk}/"
        change = f"/admin/helpdesk/ticket/{ticket.pk}/change/"
        for priority in (Priority.MEDIUM, None, Priority.HIGH):
            ticket.priority = priority
            ticket.save()
            assert admin_client.get(about).json()["prediction"] is None
            assert admin_client.post(f"{about}classify/").json()["priority"] is None
            assert "tp-bars" not in admin_client.get(change).content.decode()
            listing = admin_client.get("/admin/helpdesk/ticket/").content.decode()
            assert "tp-state--suggested" not in listing
            assert admin_client.get("/api/predictions/").json()["count"] == 0
        assert labels() == {}
        assert audit_agreement(active_model, [get_source(Ticket)]) is None

    def test_the_demo_hides_it(
        self, active_model: ModelVersion, drawn: None, admin_client: Client
    ) -> None:
        ticket = ticket_in_slice()
        page = admin_client.get(f"/tickets/{ticket.pk}/").content.decode()
        assert "What the model thinks" not in page
        assert "Suggested:" not in page


class TestLabels:
    def test_what_a_person_says_unseen_is_a_label_of_the_audit(
        self, active_model: ModelVersion, drawn: None
    ) -> None:
        by_override, in_the_host, unset = (ticket_in_slice() for _ in range(3))
        ticket_priority.override(by_override, Priority.LOW)
        Ticket.objects.filter(pk=by_override.pk).update(description="overridden")
        Ticket.objects.filter(pk=in_the_host.pk).update(priority=1)
        assert unset.priority is None
        dropped: Counter[str] = Counter()
        (row,) = labelled_texts(get_source(Ticket), dropped=dropped)
        assert (row.text, row.label, row.provenance) == ("outage\noverridden", 0, "audit")
        assert dropped == {"undecided in the audit slice": 1}, "nobody knows who set it, or when"

    def test_who_changes_their_mind_has_seen_the_prediction(
        self, active_model: ModelVersion, drawn: None
    ) -> None:
        ticket = ticket_in_slice()
        ticket_priority.override(ticket, Priority.LOW)
        ticket_priority.override(ticket, Priority.HIGH)
        assert set(labels().values()) == {(2, "override")}
        ticket_priority.override(ticket, Priority.LOW)
        assert set(labels().values()) == {(0, "audit")}

    def test_a_default_is_no_label_in_the_slice(
        self, active_model: ModelVersion, drawn: None
    ) -> None:
        before = get_source(Ticket)
        register(
            Ticket,
            text_fields=("subject", "description"),
            unset=(None, 1),
            labelled=lambda rows: rows,
        )
        try:
            ticket = Ticket.objects.create(**OUTAGE, priority=1)
            dropped: Counter[str] = Counter()
            assert list(labelled_texts(get_source(Ticket), dropped=dropped)) == []
            assert dropped == {"undecided in the audit slice": 1}
            ticket_priority.override(ticket, Priority.MEDIUM)
            assert set(labels().values()) == {(1, "audit")}
        finally:
            ticket_priority.sources.registry._sources[Ticket] = before

    def test_a_weight_may_be_given(
        self, active_model: ModelVersion, drawn: None, configure: Configure
    ) -> None:
        configure(TRAINING={"LABEL_WEIGHTS": {"audit": 2}})
        ticket_priority.override(ticket_in_slice(), Priority.LOW)
        (row,) = labelled_texts(get_source(Ticket))
        assert row.weight == 2


def test_a_decision_before_the_worker_comes_is_compared_all_the_same(
    active_model: ModelVersion, drawn: None, configure: Configure
) -> None:
    configure(MODE="async")
    ticket = Ticket.objects.create(**OUTAGE)
    ticket_priority.override(ticket, Priority.HIGH)
    outbox.drain()
    prediction = only_prediction(ticket)
    assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.AUDIT)
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH
    found = audit_agreement(active_model, [get_source(Ticket)])
    assert found is not None
    assert (found.rows, found.agreeing) == (1, 1)


def test_the_agreement_counts_first_words_of_the_versions_own_answers(
    active_model: ModelVersion, drawn: None
) -> None:
    sources = [get_source(Ticket)]
    assert audit_agreement(active_model, sources) is None
    right, wrong, changed, by_host, _unset = (ticket_in_slice() for _ in range(5))
    classify_instances([right])
    ticket_priority.override(right, Priority.HIGH)
    ticket_priority.override(wrong, Priority.LOW)
    ticket_priority.override(changed, Priority.LOW)
    ticket_priority.override(changed, Priority.HIGH)
    Ticket.objects.filter(pk=by_host.pk).update(priority=2)
    found = audit_agreement(active_model, sources)
    assert found is not None
    assert (found.rows, found.agreeing, found.accuracy) == (3, 1, 1 / 3)
    assert found.interval is not None
    low, high = found.interval
    assert 0 < low < 0.1
    assert 0.9 < high < 1
    newest = audit_agreement(active_model, sources, newest=3)
    assert newest is not None
    assert (newest.rows, newest.agreeing) == (1, 1), "two have no decision, and others are older"
    other = ModelVersion.objects.create(name="other", kind="x", directory="x", digest="0")
    assert audit_agreement(other, sources) is None


def test_the_page_of_a_version_says_how_often_people_agreed(
    active_model: ModelVersion, drawn: None, admin_client: Client
) -> None:
    url = f"/admin/ticket_priority/modelversion/{active_model.pk}/change/"
    right, wrong = ticket_in_slice(), ticket_in_slice()
    assert "Quality at work" not in admin_client.get(url).content.decode()
    ticket_priority.override(right, Priority.HIGH)
    ticket_priority.override(wrong, Priority.LOW)
    page = admin_client.get(url).content.decode()
    assert "Right on 1 of 2 new tickets" in page
    assert "1% – 99%" in page
    german = admin_client.get(url, HTTP_ACCEPT_LANGUAGE="de").content.decode()
    assert "Richtig bei 1 von 2 neuen Tickets" in german


def test_the_agreement_needs_no_scipy(
    active_model: ModelVersion, drawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ticket_priority.ml.policy.certification", None)
    ticket_priority.override(ticket_in_slice(), Priority.HIGH)
    found = audit_agreement(active_model, [get_source(Ticket)])
    assert found is not None
    assert (found.accuracy, found.interval) == (1.0, None)
