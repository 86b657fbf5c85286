"""Hostile tickets through the real signal, with the linear starter as the active model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpdesk.models import Ticket
from tests.support.hostile import FRAGMENTS, HOSTILE_TEXTS
from ticket_priority import classify
from ticket_priority.ml.text.normalisation import text_hash
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions.overrides import override
from ticket_priority.predictions.receivers import muted
from ticket_priority.priorities import Priority
from ticket_priority.sources.registry import get_source
from ticket_priority.starter.install import install_linear
from ticket_priority.training.labels import labelled_texts

pytestmark = pytest.mark.django_db

ANY_TEXT = st.one_of(
    st.text(st.characters(), max_size=200),
    st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join),
    st.builds(
        str.__mul__, st.text(st.characters(), min_size=1, max_size=3), st.integers(1, 20_000)
    ),
)
often = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def linear_starter(db: None, artifact_root: Path, fresh_classifier: None) -> ModelVersion:
    """Have the linear starter serve."""
    version = install_linear()
    version.activate()
    return version


def prediction_of(ticket: Ticket) -> Prediction:
    return Prediction.objects.for_keys(Ticket, [ticket.pk]).get()


def check_sound(ticket: Ticket, prediction: Prediction) -> None:
    """Assert that it is an answer to the ticket's text, or that there is no text."""
    text = get_source(Ticket).text_of(ticket)
    if not text:
        assert (prediction.state, prediction.reason) == ("abstained", "empty_text")
        assert ticket.priority is None
        return
    assert prediction.state == Prediction.State.APPLIED
    assert prediction.text_hash == text_hash(text)
    probabilities = list(prediction.probabilities.values())
    assert all(value is not None and 0 <= value <= 1 for value in probabilities)
    assert sum(filter(None, probabilities)) == pytest.approx(1)
    assert ticket.priority == prediction.priority
    assert prediction.confidence == max(filter(None, probabilities))


def outcome_of(save: Callable[[], Ticket]) -> tuple[Ticket | None, type[Exception] | None]:
    """Return the ticket, or what the host's database or its driver has against the text."""
    try:
        with transaction.atomic():
            return save(), None
    except (DatabaseError, UnicodeError, ValueError) as error:
        return None, type(error)


@often
@given(ANY_TEXT)
def test_a_ticket_is_saved_whatever_it_holds(text: str) -> None:
    """What the host's own column cannot hold fails as it does without the plugin."""
    with muted():
        without, refused = outcome_of(lambda: Ticket.objects.create(description=text))
    ticket, error = outcome_of(lambda: Ticket.objects.create(description=text))
    assert error is refused
    assert (ticket is None) == (without is None)
    if ticket is not None:
        ticket.refresh_from_db()
        assert ticket.description == text, "the stored ticket is untouched"
        check_sound(ticket, prediction_of(ticket))


@often
@given(st.lists(ANY_TEXT, max_size=3))
def test_any_text_is_answered_though_no_database_would_hold_it(texts: list[str]) -> None:
    answers = classify(texts)
    assert len(answers) == len(texts)
    assert all(answer.is_sound for answer in answers)


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_a_huge_ticket_is_saved(name: str) -> None:
    text = HOSTILE_TEXTS[name]()
    if connection.vendor != "sqlite" and len(text.encode("utf-8", "surrogatepass")) > 4_000_000:
        text = text[:1_000_000]
    with muted():
        refused = outcome_of(lambda: Ticket.objects.create(description=text))[1]
    ticket, error = outcome_of(lambda: Ticket.objects.create(description=text))
    assert error is refused
    if ticket is not None:
        check_sound(ticket, prediction_of(ticket))


def test_training_learns_from_the_text_that_the_model_was_asked_about() -> None:
    ticket = Ticket.objects.create(
        subject="Printer \ufb01re\u200b",
        description="<p>The <b>print</b>er is&nbsp;down</p><style>p {}</style>" + "A1b" * 100,
    )
    override(ticket, Priority.HIGH, user=User.objects.create_user("ann"))
    (row,) = labelled_texts(get_source(Ticket))
    assert row.text == "Printer fire\nThe printer is down"
    assert text_hash(row.text) == prediction_of(ticket).text_hash
