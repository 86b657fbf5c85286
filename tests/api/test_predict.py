from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from rest_framework.test import APIClient

from tests.support.settings import overlay
from ticket_priority import __version__
from ticket_priority.api.serializers import MAX_TEXT_LENGTH
from ticket_priority.models import ModelVersion, Prediction

URL = "/api/predict/"


def post_raw(client: APIClient, body: bytes, content_type: str = "application/json") -> Any:
    return client.generic("POST", URL, body, content_type=content_type)


def test_a_text_is_answered(staff: APIClient, active_model: ModelVersion) -> None:
    response = staff.post(URL, {"text": "outage outage the system is down"}, format="json")
    assert response.status_code == 200
    answer = response.json()
    assert (answer["priority"], answer["priority_id"]) == ("high", 2)
    assert answer["model_version"] == active_model.name
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["confidence"] == answer["probabilities"]["high"]
    assert not Prediction.objects.exists()


def test_texts_are_answered_in_order(staff: APIClient, active_model: ModelVersion) -> None:
    texts = ["typo font colour", "outage breach fire", "invoice refund slow"]
    answer = staff.post(URL, {"texts": texts}, format="json").json()
    assert [result["priority"] for result in answer["results"]] == ["low", "high", "medium"]
    assert answer["model_version"] == active_model.name
    assert "model_version" not in answer["results"][0]


def test_text_is_normalised_before_it_is_classified(
    staff: APIClient, active_model: ModelVersion
) -> None:
    plain = staff.post(URL, {"text": "outage breach"}, format="json").json()
    dressed = staff.post(URL, {"text": "\u200boutage\u200d \ufeffbreach\u202e "}, format="json")
    assert dressed.json() == plain


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": "a", "texts": ["b"]}, "texts"),
        ({"text": ""}, "text"),
        ({"text": " \n\t "}, "text"),
        ({"text": "\u200b\u200d"}, "text"),
        ({"text": None}, "text"),
        ({"text": {"a": 1}}, "text"),
        ({"text": True}, "text"),
        ({"text": "nul\x00byte"}, "text"),
        ({"text": "x" * (MAX_TEXT_LENGTH + 1)}, "text"),
        ({"texts": []}, "texts"),
        ({"texts": "abc"}, "texts"),
        ({"texts": {"0": "abc"}}, "texts"),
        ({"texts": None}, "texts"),
        ({"texts": ["a"] * 65}, "texts"),
        ({"texts": ["fine", ""]}, "texts"),
        ({"texts": [["nested"]]}, "texts"),
        ([1, 2], "non_field_errors"),
        (None, "non_field_errors"),
        ("text", "non_field_errors"),
    ],
)
def test_bad_input_is_refused_by_field(staff: APIClient, body: Any, field: str) -> None:
    response = post_raw(staff, json.dumps(body).encode())
    assert response.status_code == 400
    assert field in response.json()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"text": "\xff\xfe"}',
        b'\xef\xbb\xbf{"text": "a"}',
        b'{"text": NaN}',
        b'{"text": ' + b"1" * 5000 + b"}",
        b'{"text": "\\ud800"}',
        b'{"texts": ["\\udfff"]}',
        b'{"\\ud800": "x"}',
        b"[" * 200_000,
        b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
)
def test_a_hostile_body_is_refused(staff: APIClient, body: bytes) -> None:
    response = post_raw(staff, body)
    assert response.status_code == 400, response.content[:200]
    assert response.json()


def test_a_charset_cannot_choose_the_codec(staff: APIClient, active_model: ModelVersion) -> None:
    body = b'{"text": "outage"}'
    for charset in ("zlib", "hex", "utf-7", "no-such"):
        assert post_raw(staff, body, f"application/json; charset={charset}").status_code == 200


def test_a_huge_body_is_refused_unparsed(staff: APIClient) -> None:
    response = post_raw(staff, b'{"text": "' + b"a" * 10_000_000 + b'"}')
    assert response.status_code == 413
    assert response.json()["detail"]


def test_the_size_limit_is_djangos(staff: APIClient, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 20
    assert post_raw(staff, b'{"texts": ["aaaaaaaaaa"]}').status_code == 413
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    assert post_raw(staff, b'{"texts": [""]}').status_code == 400


def test_the_number_of_texts_is_a_setting(staff: APIClient, settings: Any) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, API={"MAX_TEXTS": 2})
    response = staff.post(URL, {"texts": ["a", "b", "c"]}, format="json")
    assert response.status_code == 400
    assert "2" in str(response.json()["texts"])


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_only_json_is_read(staff: APIClient, content_type: str) -> None:
    assert post_raw(staff, b"text=a", content_type).status_code == 415


def test_without_a_model_the_answer_is_503_and_when_to_retry(
    staff: APIClient, fresh_classifier: None
) -> None:
    response = staff.post(URL, {"text": "outage"}, format="json")
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert "model" in response.json()["detail"]


def test_bad_input_is_told_also_without_a_model(staff: APIClient, fresh_classifier: None) -> None:
    assert staff.post(URL, {"text": ""}, format="json").status_code == 400


def test_a_failing_model_is_503_and_the_text_stays_out_of_the_log(
    staff: APIClient, active_model: ModelVersion, settings: Any, caplog: Any
) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={"CLASSIFIERS": {"transformer": "tests.api.test_predict.IndiscreetClassifier"}},
    )
    with caplog.at_level(logging.DEBUG):
        response = staff.post(URL, {"text": "my password is swordfish"}, format="json")
    assert response.status_code == 503
    assert "Retry-After" in response
    assert "KeyError" in caplog.text
    assert "swordfish" not in caplog.text
    assert "swordfish" not in response.content.decode()


def test_an_answered_text_is_not_logged(
    staff: APIClient, active_model: ModelVersion, caplog: Any
) -> None:
    with caplog.at_level(logging.DEBUG):
        staff.post(URL, {"text": "swordfish outage"}, format="json")
        staff.post(URL, {"text": "swordfish \x00"}, format="json")
    assert "swordfish" not in caplog.text


class IndiscreetClassifier:
    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def classify(self, texts: list[str]) -> Any:
        raise KeyError(texts[0])


def test_info_says_what_runs(staff: APIClient, active_model: ModelVersion) -> None:
    before = staff.get("/api/info/").json()
    assert before["version"] == __version__
    assert before["model"]["name"] == active_model.name
    assert before["model"]["metrics"]["accuracy"] > 0.8
    assert before["sources"] == [{"source": "helpdesk.Ticket", "mode": "sync"}]
    assert before["max_texts"] == 64
    assert before["model_loaded"] is False
    staff.post(URL, {"text": "outage"}, format="json")
    assert staff.get("/api/info/").json()["model_loaded"] is True


def test_info_without_a_model(staff: APIClient, fresh_classifier: None) -> None:
    assert staff.get("/api/info/").json()["model"] is None
