from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

import ticket_priority
from helpdesk.models import Ticket
from tests.support.classifiers import FaultyClassifier
from ticket_priority import classifiers
from ticket_priority.logs import redacted_traceback
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import outbox, shadow
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.starter.install import install_linear

SECRET = {"subject": "my password", "description": "it is swordfish"}


def quote(texts: Any) -> None:
    try:
        {}[texts[0]]
    except KeyError as error:
        raise ValueError(f"cannot read {texts}") from error


def caught(function: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()
    return caught.value


def test_types_and_frames_without_a_message() -> None:
    secret = ["swordfish"]
    trace = redacted_traceback(caught(lambda: quote(secret)))
    assert "swordfish" not in trace
    assert "ValueError" in trace
    assert "after KeyError" in trace
    assert trace.count("in quote") == 2


def test_a_loop_of_causes_ends() -> None:
    error = ValueError()
    error.__cause__ = KeyError()
    error.__cause__.__cause__ = error
    assert redacted_traceback(error) == "ValueError\nafter KeyError"


def test_what_the_database_says_of_itself_is_told() -> None:
    assert redacted_traceback(OperationalError("no such table: tickets")) == (
        "OperationalError: no such table: tickets"
    )


def test_no_road_logs_a_word_of_a_ticket(
    faulty_model: type[FaultyClassifier],
    configure: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ModelVersion.objects.get(is_active=True)
    install_linear().start_shadow()
    with caplog.at_level(logging.DEBUG):
        with ticket_priority.muted():
            old = Ticket.objects.create(**SECRET)
        Ticket.objects.create(**SECRET)
        outbox.drain()
        faulty_model.fault = quote
        configure(
            SERVING={
                "CLASSIFIERS": {
                    "transformer": "tests.support.classifiers.FaultyClassifier",
                    "linear": "tests.support.classifiers.FaultyClassifier",
                },
                "BREAKER_FAILURES": 100,
            }
        )
        shadow.catch_up()
        ticket = Ticket.objects.create(**SECRET)
        outbox.drain()
        # The drain has opened the breaker.
        classifiers.reset()
        classify_instances([old])
    assert ticket.priority is None
    logged = [record.getMessage() for record in caplog.records]
    assert sum("ValueError" in line for line in logged) >= 4
    assert "swordfish" not in caplog.text
    assert "swordfish" not in ModelVersion.objects.get(is_shadow=True).load_error


def test_an_adapter_that_quotes_a_ticket_is_not_logged_word_for_word(
    active_model: ModelVersion, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Any, instance: Ticket, *args: Any, **options: Any) -> None:
        raise RuntimeError(instance.description)

    for method in ("wants", "write_history"):
        with monkeypatch.context() as patch:
            patch.setattr(f"ticket_priority.sources.base.TicketSource.{method}", refuse)
            Ticket.objects.create(**SECRET)
    assert "is ignored: RuntimeError" in caplog.text
    assert "lacks a change of its priority: RuntimeError" in caplog.text
    assert "swordfish" not in caplog.text
