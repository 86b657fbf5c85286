"""A ticket that is deleted while the model is busy with it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.urls import reverse
from rest_framework.test import APIClient

from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, TYPO
from tests.support.classifiers import FaultyClassifier
from ticket_priority.classifiers import ActiveClassifier
from ticket_priority.models import ModelVersion, Prediction, ShadowPrediction
from ticket_priority.predictions import outbox, shadow
from ticket_priority.predictions.receivers import muted
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.signals import priority_predicted
from ticket_priority.starter.install import install_linear

pytestmark = pytest.mark.django_db

State, Reason = Prediction.State, Prediction.Reason


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """The predictions that receivers were told of."""
    found: list[Any] = []

    def listen(prediction: Prediction, **kwargs: Any) -> None:
        found.append(prediction)

    priority_predicted.connect(listen)
    yield found
    priority_predicted.disconnect(listen)


@pytest.fixture
def ticket(faulty_model: type[FaultyClassifier], configure: Callable[..., None]) -> Ticket:
    configure(SERVING={"DEADLINE_MS": None})
    with muted():
        return Ticket.objects.create(**OUTAGE)


def delete(ticket: Ticket) -> Callable[[Sequence[str]], None]:
    return lambda texts: Ticket.objects.filter(pk=ticket.pk).delete() and None


def delete_past_django(ticket: Ticket) -> Callable[[Sequence[str]], None]:
    return lambda texts: Ticket.objects.filter(pk=ticket.pk)._raw_delete("default") and None


@pytest.mark.parametrize("vanish", [delete, delete_past_django])
@pytest.mark.parametrize("mode", ["sync", "suggest"])
def test_classifying_it_stores_nothing_and_goes_on_with_the_others(
    faulty_model: type[FaultyClassifier],
    ticket: Ticket,
    told: list[Any],
    mode: str,
    vanish: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:
    with muted():
        other = Ticket.objects.create(**TYPO)
    faulty_model.fault = vanish(ticket)
    with django_capture_on_commit_callbacks(execute=True):
        gone, kept = classify_instances([ticket, other], mode=mode)
    assert (gone.pk, gone.state, gone.reason) == (None, State.ABSTAINED, Reason.TICKET_GONE)
    assert list(Prediction.objects.all()) == [kept]
    assert told == [kept]


def test_the_api_says_that_it_is_not_there(
    faulty_model: type[FaultyClassifier], ticket: Ticket, admin_user: Any
) -> None:
    faulty_model.fault = delete(ticket)
    client = APIClient()
    client.force_authenticate(admin_user)
    url = reverse("ticket_priority_api:ticket-classify", args=["helpdesk.Ticket", ticket.pk])
    assert client.post(url).status_code == 404
    assert not Prediction.objects.exists()


@pytest.mark.parametrize("vanish, left", [(delete, []), (delete_past_django, ["ticket_gone"])])
def test_a_worker_blames_no_person(
    faulty_model: type[FaultyClassifier],
    ticket: Ticket,
    configure: Callable[..., None],
    told: list[Any],
    vanish: Any,
    left: list[str],
    django_capture_on_commit_callbacks: Any,
) -> None:
    configure(MODE="async")
    pending = Ticket.objects.create(**OUTAGE)
    faulty_model.fault = vanish(pending)
    with django_capture_on_commit_callbacks(execute=True):
        outbox.drain()
    assert list(Prediction.objects.values_list("reason", flat=True)) == left
    assert told == []


def test_the_shadow_leaves_no_answer_about_it(
    active_model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_linear().start_shadow()
    gone, stays = Ticket.objects.create(**OUTAGE), Ticket.objects.create(**TYPO)
    key, ask = str(stays.pk), ActiveClassifier.classify

    def classify(self: ActiveClassifier, texts: Sequence[str]) -> Any:
        Ticket.objects.filter(pk=gone.pk).delete()
        return ask(self, texts)

    monkeypatch.setattr(ActiveClassifier, "classify", classify)
    shadow.catch_up()
    assert list(ShadowPrediction.objects.values_list("object_id", flat=True)) == [key]
