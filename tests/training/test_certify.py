from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

import ticket_priority
from helpdesk.models import Ticket
from tests.ml.conftest import toy_rows
from tests.ml.policy.test_rule import EQUAL
from tests.predictions.test_audit import Coin
from tests.support.classifiers import known_probabilities, known_text
from ticket_priority.checks.settings import check_certificates
from ticket_priority.conf import get_settings
from ticket_priority.ml.artifacts import store
from ticket_priority.ml.policy.rule import METRICS_KEY, Certification
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import audit
from ticket_priority.sources.registry import get_source
from ticket_priority.training.certify import certify_candidate
from ticket_priority.training.dataset import build

pytestmark = pytest.mark.django_db

Configure = Callable[..., None]

ROWS = 1200
TARGETS = {"high": 0.75, "medium": 0.75}


def run(*arguments: str) -> tuple[str, str]:
    """Run the command; return what it printed, and the error it ended with."""
    out = StringIO()
    try:
        call_command("certify_priority_model", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


@pytest.fixture
def tickets(db: None) -> None:
    """Label tickets by the very probabilities that the classifier will give."""
    chance = random.Random(7)  # noqa: S311
    rows = []
    for number in range(ROWS):
        text = known_text(chance)
        (label,) = chance.choices((0, 1, 2), known_probabilities(text))
        language = "de" if number % 2 else "en"
        rows.append(Ticket(description=text, priority=label, language=language))
    Ticket.objects.bulk_create(rows)


@pytest.fixture
def version(tickets: None, active_model: ModelVersion, configure: Configure) -> ModelVersion:
    """An active version that answers by known probabilities, trained on other tickets."""
    configure(
        SERVING={"CLASSIFIERS": {"transformer": "tests.support.classifiers.KnownClassifier"}},
        DECISIONS={"AUTO_APPLY": TARGETS},
    )
    active_model.dataset = {"split": {"by": "random"}}
    active_model.save()
    return active_model


def test_certificates_are_printed_kept_and_applied(version: ModelVersion) -> None:
    printed, error = run()
    assert error == ""
    assert "not certified" not in printed.splitlines()[0]
    version.refresh_from_db()
    assert version.metrics["model"]
    found = Certification.read(version.metrics)
    assert found is not None
    assert found.is_for(TARGETS, None)
    assert {row.priority for row in found.certificates} == set(TARGETS)
    (high, *_) = [row for row in found.holding if row.priority == "high"]
    assert high.threshold is not None
    assert f"{high.threshold:.4f}" in printed
    chance = random.Random(8)  # noqa: S311
    outcomes = set()
    for _ in range(60):
        text = known_text(chance)
        ticket = Ticket.objects.create(description=text, language="de")
        probability = known_probabilities(text)[2]
        (row,) = [row for row in found.certificates if row.is_about("high", "de")]
        if max(known_probabilities(text)) == probability:
            is_covered = row.covers(probability)
            assert ticket.priority == (2 if is_covered else None)
            outcomes.add(is_covered)
    assert outcomes == {True, False}


def test_json_holds_everything(version: ModelVersion) -> None:
    printed, _error = run("--json")
    said = json.loads(printed)
    assert said["model_version"] == version.name
    version.refresh_from_db()
    assert said["certification"] == version.metrics[METRICS_KEY]
    assert said["audit"] == {}
    names = {"priority", "language", "target", "threshold", "rows", "precision", "lower_bound"}
    assert names < set(said["certification"]["certificates"][0])


def test_a_version_can_be_named(version: ModelVersion) -> None:
    assert run(version.name)[1] == ""
    assert "no model version 'nope'" in run("nope")[1]


def test_nothing_certified_is_an_error_that_is_kept(
    version: ModelVersion, configure: Configure
) -> None:
    configure(DECISIONS={"AUTO_APPLY": {"high": 0.999}})
    printed, error = run()
    assert "Nothing is certified" in error
    assert "not certified: the precision may be as low as" in printed
    version.refresh_from_db()
    assert version.metrics[METRICS_KEY]["targets"] == {"high": 0.999}


def test_without_a_target_there_is_nothing_to_certify(
    version: ModelVersion, configure: Configure
) -> None:
    configure(DECISIONS={"AUTO_APPLY": None})
    _printed, error = run()
    assert "AUTO_APPLY" in error
    configure(DECISIONS={"AUTO_APPLY": {"high": 9}})
    assert "AUTO_APPLY is wrong" in run()[1]


def test_without_an_active_version_the_command_says_so(configure: Configure) -> None:
    assert "No model version is active" in run()[1]


@pytest.mark.parametrize(
    "trained_on", [{}, [], {"split": {"by": "file"}}, {"split": {"by": "time"}}, {"split": 3}]
)
def test_a_version_that_may_know_the_test_is_refused(
    version: ModelVersion, trained_on: Any
) -> None:
    ModelVersion.objects.update(dataset=trained_on)
    assert "may have seen" in run()[1]
    version.refresh_from_db()
    assert METRICS_KEY not in version.metrics


def test_a_version_that_was_trained_on_the_same_rows_kept_to_their_splits(
    version: ModelVersion,
) -> None:
    fingerprint = build([get_source(Ticket)]).fingerprint
    trained_on = {"split": {"by": "file"}, "fingerprint": fingerprint}
    ModelVersion.objects.update(dataset=trained_on)
    assert run()[1] == ""


def test_a_starter_knows_no_ticket_here(version: ModelVersion) -> None:
    ModelVersion.objects.update(dataset={}, metrics={"starter": {}})
    assert run()[1] == ""
    version.refresh_from_db()
    assert version.is_starter


def test_a_machine_without_scipy_is_told_what_to_install(
    version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ticket_priority.ml.policy.certification", raising=False)
    monkeypatch.delattr("ticket_priority.ml.policy.certification", raising=False)
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    assert "django-ticket-priority[ml]" in run()[1]


def test_the_system_check_names_the_command(version: ModelVersion, configure: Configure) -> None:
    def found() -> list[str]:
        return [str(one.id) for one in check_certificates(databases=["default"])]

    assert list(check_certificates()) == []
    assert found() == ["ticket_priority.W041"]
    run()
    assert found() == []
    configure(DECISIONS={"COSTS": EQUAL})
    assert found() == ["ticket_priority.W041"]
    configure(DECISIONS={"COSTS": {"high": 3}})
    assert found() == []
    configure(DECISIONS={"COSTS": None, "AUTO_APPLY": None})
    assert found() == []


def test_activating_says_where_nothing_is_certified(version: ModelVersion) -> None:
    def activate() -> str:
        out = StringIO()
        call_command("activate_priority_model", version.name, stdout=out)
        return out.getvalue()

    assert "manage.py certify_priority_model" in activate()
    run()
    assert "certify_priority_model" not in activate()


class TestAtRegistration:
    def candidate(self, version: ModelVersion) -> store.Artifact:
        return store.read(get_settings().artifact_root / version.directory)

    def test_a_new_version_is_certified_as_it_is_served(self, version: ModelVersion) -> None:
        dataset = build([get_source(Ticket)])
        said: list[str] = []
        metrics = certify_candidate(
            self.candidate(version), dataset, dataset.summary(), said.append
        )
        found = Certification.read(metrics)
        assert found is not None
        assert found.holding
        assert metrics["model"] == version.metrics["model"]
        run()
        version.refresh_from_db()
        assert version.metrics[METRICS_KEY] == found.as_dict()
        assert any("certificates hold" in line for line in said)

    def test_certificates_from_elsewhere_are_not_taken_over(
        self, version: ModelVersion, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidate = self.candidate(version)
        candidate.metrics[METRICS_KEY] = {"targets": TARGETS, "costs": None, "certificates": []}
        said: list[str] = []
        assert METRICS_KEY not in certify_candidate(candidate, None, {}, said.append)
        assert "too few labelled tickets" in said[-1]
        dataset = build([get_source(Ticket)])
        assert METRICS_KEY not in certify_candidate(
            candidate, dataset, {"split": {"by": "file"}}, said.append
        )
        assert "may have seen" in said[-1]
        configure(DECISIONS={"AUTO_APPLY": None})
        assert METRICS_KEY not in certify_candidate(candidate, dataset, dataset.summary())

    def test_training_certifies(self, configure: Configure, fresh_classifier: None) -> None:
        Ticket.objects.bulk_create(
            [Ticket(subject=row.text, priority=row.label) for row in toy_rows(240, 5)]
        )
        configure(DECISIONS={"AUTO_APPLY": {"high": 0.6, "low": 0.6}})
        out = StringIO()
        call_command("train_priority_model", "--model-name=linear", "--verbosity=1", stdout=out)
        version = ModelVersion.objects.get()
        found = Certification.read(version.metrics)
        assert found is not None
        assert found.is_for({"high": 0.6, "low": 0.6}, None)
        # Of 240 tickets too few are in the test split to certify anything.
        assert found.holding == []
        assert all(row.reason for row in found.certificates)
        assert "certificates hold" in out.getvalue()
        ticket = Ticket.objects.create(subject="outage", language="de")
        assert ticket.priority is None
        assert Prediction.objects.get().reason == Prediction.Reason.UNCERTIFIED


def test_the_report_says_how_the_audit_went(
    version: ModelVersion, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(DECISIONS={"AUDIT_SHARE": 0.1})
    monkeypatch.setattr(audit, "_chance", Coin(0.0))
    chance = random.Random(9)  # noqa: S311
    for number in range(4):
        ticket = Ticket.objects.create(description=known_text(chance))
        predicted = Prediction.objects.for_instance(ticket).get().priority
        assert predicted is not None
        ticket_priority.override(ticket, predicted if number else (predicted + 1) % 3)
    printed, _error = run()
    assert f"Audit of {version.name}: right on 3 of 4 tickets" in printed
    said = json.loads(run("--json")[0])["audit"][version.name]
    assert (said["rows"], said["agreeing"], said["accuracy"]) == (4, 3, 0.75)
    configure(DECISIONS={"AUTO_APPLY": None})
    printed, error = run()
    assert "right on 3 of 4 tickets" in printed
    assert error
    assert json.loads(run("--json")[0])["certification"] is None
