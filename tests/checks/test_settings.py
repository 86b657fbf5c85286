from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Info, run_checks
from django.db import OperationalError, models
from django.test.utils import isolate_apps

from helpdesk.models import Ticket
from tests.support.settings import overlay
from ticket_priority import checks
from ticket_priority.checks.sources import MIDDLEWARE, register_configured_sources
from ticket_priority.queues import django_q
from ticket_priority.sources import registry
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import get_source, register

Checked = Callable[..., list[CheckMessage]]


def found() -> list[CheckMessage]:
    return run_checks(tags=["ticket_priority"])


def found_ids() -> set[str | None]:
    return {message.id for message in found()}


@dataclass(frozen=True, slots=True)
class ListingSource(TicketSource):
    """Knows which rows people set."""

    def labelled_rows(self, using: str | None = None, *, decided_keys: Any = ()) -> Any:
        return self.queryset(using).filter(pk__in=decided_keys)


@dataclass(frozen=True, slots=True)
class InformedSource(TicketSource):
    def check(self) -> Iterable[CheckMessage]:
        return [Info("Cloud mode.", id="desk.I001")]


@dataclass(frozen=True, slots=True)
class BrokenSource(TicketSource):
    def check(self) -> Iterable[CheckMessage]:
        yield Info("First.", id="desk.I001")
        raise OSError("no route to host")


def ask_a_table_that_is_not_there() -> int:
    raise OperationalError("no such table")


@pytest.fixture
def checked() -> Iterator[Checked]:
    """Return what the checks say of a model with a 1..5 scale, attached with some options."""
    attached: list[type[models.Model]] = []

    def checked(
        column: models.Field[Any, Any] | None = None, build: Any = TicketSource, **options: Any
    ) -> list[CheckMessage]:
        with isolate_apps("helpdesk"):

            class Case(models.Model):
                title = models.TextField()
                queue = models.ForeignKey("self", on_delete=models.CASCADE)
                severity = column or models.IntegerField(
                    choices=[(value, str(value)) for value in range(1, 6)], default=3
                )

                class Meta:
                    app_label = "helpdesk"

        given: dict[str, Any] = {
            "text_fields": ("title",),
            "priority_field": "severity",
            "to_host": {"low": 4, "medium": 3, "high": 2},
            "from_host": {1: "high", 2: "high", 3: "medium", 4: "low", 5: "low"},
            "unset": (None, 3),
        }
        attached.append(Case)
        registry._sources[Case] = build(model=Case, **{**given, **options})
        return [message for message in found() if message.obj is Case or message.obj is None]

    yield checked
    for model in attached:
        registry.unregister(model)


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


def test_the_demo_is_clean() -> None:
    assert found_ids() == set()


@pytest.mark.parametrize(
    ("value", "identifier"),
    [
        ([], "ticket_priority.E001"),
        ({"MODELNAME": "x"}, "ticket_priority.E002"),
        ({"MODE": "later"}, "ticket_priority.E003"),
        ({"TRAINING": {"GATE_METRIC": "f1"}}, "ticket_priority.E008"),
        ({"TRAINING": {"GATE_TOLERANCE": -0.01}}, "ticket_priority.E031"),
        ({"TRAINING": {"GATE_TOLERANCE": "1%"}}, "ticket_priority.E031"),
        ({"TRAINING": {"GATE_TOLERANCE": True}}, "ticket_priority.E031"),
        ({"TRAINING": {"HYPERPARAMETERS": {"max_epochs": 0}}}, "ticket_priority.E004"),
        ({"TRAINING": {"HYPERPARAMETERS": {"epochs": 3}}}, "ticket_priority.E004"),
        ({"QUEUE": {"CLAIM_SECONDS": 0}}, "ticket_priority.E032"),
        ({"SERVING": {"BATCH_SIZE": 1.5}}, "ticket_priority.E032"),
        ({"QUEUE": {"MAX_ATTEMPTS": "5"}}, "ticket_priority.E032"),
        ({"DECISIONS": {"STALE_FORM_MINUTES": -1}}, "ticket_priority.E032"),
        ({"SOURCES": ["desk.Case"]}, "ticket_priority.E009"),
        ({"TRAINING": {"LABEL_WEIGHTS": {"rumour": 0.5}}}, "ticket_priority.E025"),
        ({"TRAINING": {"LABEL_WEIGHTS": {"host": 0}}}, "ticket_priority.E025"),
        ({"TRAINING": {"LABEL_WEIGHTS": 0.5}}, "ticket_priority.E025"),
        ({"DECISIONS": {"COSTS": {"high": {"low": 5}}}}, "ticket_priority.E040"),
        ({"DECISIONS": {"COSTS": 5}}, "ticket_priority.E040"),
        ({"DECISIONS": {"AUTO_APPLY": {"urgent": 0.9}}}, "ticket_priority.E041"),
        ({"DECISIONS": {"AUTO_APPLY": {"high": 1}}}, "ticket_priority.E041"),
        ({"DECISIONS": {"AUDIT_SHARE": 0.6}}, "ticket_priority.E042"),
        ({"DECISIONS": {"AUDIT_SHARE": "0.1"}}, "ticket_priority.E042"),
        ({"TRAINING": {"RETRAIN": {"every_days": 0}}}, "ticket_priority.E050"),
        ({"TRAINING": {"RETRAIN": {"every_days": True}}}, "ticket_priority.E050"),
        ({"TRAINING": {"RETRAIN": {"min_new_labels": -1}}}, "ticket_priority.E050"),
        ({"TRAINING": {"RETRAIN": {"timeout_minutes": 0}}}, "ticket_priority.E050"),
        ({"TRAINING": {"RETRAIN": {"activate": "sometimes"}}}, "ticket_priority.E050"),
        ({"TRAINING": {"RETRAIN": {"weekly": True}}}, "ticket_priority.E050"),
        ({"TRAINING": {"RETRAIN": 7}}, "ticket_priority.E050"),
        ({"API": {"MAX_TEXTS": 0}}, "ticket_priority.E005"),
        ({"API": {"MAX_TEXTS": "64"}}, "ticket_priority.E005"),
        ({"API": {"THROTTLE_RATE": "often"}}, "ticket_priority.E006"),
        ({"API": {"THROTTLE_RATE": 120}}, "ticket_priority.E006"),
        (
            {"API": {"PERMISSION_CLASSES": "rest_framework.permissions.AllowAny"}},
            "ticket_priority.E007",
        ),
        ({"API": {"AUTHENTICATION_CLASSES": ["no.such.Class"]}}, "ticket_priority.E007"),
        ({"SERVING": {"DEADLINE_MS": 0}}, "ticket_priority.E060"),
        ({"SERVING": {"DEADLINE_MS": "300"}}, "ticket_priority.E060"),
        ({"SERVING": {"BREAKER_FAILURES": 0}}, "ticket_priority.E061"),
        ({"SERVING": {"BREAKER_FAILURES": 1.5}}, "ticket_priority.E061"),
        ({"SERVING": {"BREAKER_SECONDS": None}}, "ticket_priority.E062"),
        ({"DECISIONS": {"OVERRIDE_RATE": "often"}}, "ticket_priority.E063"),
        ({"DECISIONS": {"OVERRIDE_RATE": 600}}, "ticket_priority.E063"),
    ],
)
def test_a_wrong_setting_is_found(settings: Any, value: Any, identifier: str) -> None:
    settings.TICKET_PRIORITY = value
    assert identifier in found_ids()


@pytest.mark.parametrize(
    "value",
    [
        {"API": {"THROTTLE_RATE": None, "MAX_TEXTS": 1}},
        {"TRAINING": {"LABEL_WEIGHTS": {"host": 0.5, "override": 2, "audit": 3}}},
        {"DECISIONS": {"COSTS": None, "AUTO_APPLY": None, "AUDIT_SHARE": 0}},
        {"DECISIONS": {"AUTO_APPLY": {"high": 0.9}, "AUDIT_SHARE": 0.5}},
        {"DECISIONS": {"AUTO_APPLY": {}}},
        {"QUEUE": {"CLAIM_SECONDS": 1}, "DECISIONS": {"STALE_FORM_MINUTES": 0}},
        {"SERVING": {"DEADLINE_MS": None}},
        {"SERVING": {"DEADLINE_MS": 0.5}},
        {
            "DECISIONS": {
                "COSTS": {
                    "low": {"low": 0, "medium": 1, "high": 2},
                    "medium": {"low": 1, "high": 1},
                    "high": {"low": 5, "medium": 2.5},
                }
            }
        },
        {"TRAINING": {"RETRAIN": None}},
        {"TRAINING": {"RETRAIN": {}}},
        {"TRAINING": {"RETRAIN": {"every_days": 30, "min_new_labels": 0, "timeout_minutes": 0.5}}},
        {"API": {"THROTTLE_RATE": "5/s", "PERMISSION_CLASSES": []}},
        {"DECISIONS": {"OVERRIDE_RATE": None}},
        {"DECISIONS": {"OVERRIDE_RATE": "60/min"}},
        {"API": {"PERMISSION_CLASSES": ("rest_framework.permissions.AllowAny",)}},
    ],
)
def test_a_right_setting_is_not_complained_of(settings: Any, value: Any) -> None:
    settings.TICKET_PRIORITY = value
    assert found_ids() == set()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"METRICS_TOKEN": "x"}, "['METRICS']['TOKEN']"),
        ({"BATCH_SIZE": 8}, "['SERVING']['BATCH_SIZE']"),
        ({"SERVING": {"BATCHSIZE": 8}}, "['SERVING']['BATCH_SIZE']"),
        ({"SERVING": {"MAX_TEXTS": 8}}, "['API']['MAX_TEXTS']"),
        ({"TRAINING": {"max_epochs": 3}}, "['TRAINING']['HYPERPARAMETERS']['max_epochs']"),
    ],
)
def test_the_new_name_of_a_setting_is_in_the_hint(settings: Any, value: Any, name: str) -> None:
    settings.TICKET_PRIORITY = value
    (message,) = found()
    assert message.id == "ticket_priority.E002"
    assert f"TICKET_PRIORITY{name}." in str(message.hint)


def test_a_rule_that_cannot_be_imported_is_found(settings: Any) -> None:
    before = get_source(Ticket)
    try:
        register(Ticket, text_fields="subject", visible_to="no.such.rule")
        assert found_ids() == {"ticket_priority.E016"}
    finally:
        registry._sources[Ticket] = before


@pytest.mark.parametrize(
    ("label", "options", "said"),
    [
        ("helpdesk.Nothing", {"text_fields": ("subject",)}, "Nothing"),
        (
            "helpdesk.Ticket",
            {"text_field": "subject"},
            "no option text_field. Options: ",
        ),
        ("helpdesk.Ticket", {"adapter": "helpdesk.models.Queue"}, "not a subclass of TicketSource"),
        ("helpdesk.Ticket", ("subject",), "Give a dictionary"),
    ],
    ids=["no such model", "no such option", "no adapter", "no dictionary"],
)
def test_a_wrong_source_in_the_settings_is_found_not_raised(
    settings: Any, label: str, options: Any, said: str
) -> None:
    settings.TICKET_PRIORITY = {"SOURCES": {label: options}}
    register_configured_sources()
    try:
        (message,) = found()
        assert message.id == "ticket_priority.E010"
        assert said in message.msg
    finally:
        settings.TICKET_PRIORITY = {}
        register_configured_sources()


def test_a_whole_mapping_of_a_hosts_scale_is_clean(checked: Checked) -> None:
    assert checked() == []


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"priority_field": "severty"}, "no severty", "Did you mean severity for severty?"),
        ({"text_fields": ("titel", "title")}, "no titel.", "Did you mean title for titel?"),
        ({"created_field": "created"}, "no created.", "Its columns: id, title, queue, severity."),
        ({"language_field": "language"}, "no language.", "Its columns"),
        ({"segment_field": "segment"}, "no segment.", "Its columns"),
        ({"priority_field": "pk"}, "no pk.", "Its columns"),
    ],
)
def test_a_field_that_does_not_exist_is_named_with_its_likely_meaning(
    checked: Checked, options: dict[str, Any], said: str, hint: str
) -> None:
    (message,) = checked(**options)
    assert message.id == "ticket_priority.E012"
    assert said in message.msg
    assert hint in str(message.hint)


def test_a_choice_that_no_class_is_mapped_to_is_named(checked: Checked) -> None:
    (message,) = checked(from_host={2: "high", 3: "medium", 4: "low"})
    assert message.id == "ticket_priority.W018"
    assert "may be 1, 5, which no class" in message.msg
    (message,) = checked(from_host=None)
    assert message.id == "ticket_priority.W018"


def test_a_choice_that_means_unset_needs_no_class(checked: Checked) -> None:
    assert checked(from_host={2: "high", 3: "medium", 4: "low"}, unset=(None, 1, 3, 5)) == []
    grouped = models.CharField(
        max_length=9,
        choices=[
            ("", "-"),
            ("Known", [("minor", "Minor"), ("major", "Major"), ("grave", "Grave")]),
        ],
    )
    words = {"low": "minor", "medium": "major", "high": "grave"}
    assert checked(grouped, to_host=words, from_host=None, unset=None) == []


@pytest.mark.parametrize(
    ("to_host", "said"),
    [
        ({"low": 4, "medium": 3, "high": 0}, "cannot hold 0."),
        ({"low": "4", "medium": 3, "high": 2}, "cannot hold '4'."),
        ({"low": None, "medium": 3, "high": "grave"}, "cannot hold None, 'grave'."),
        ({"low": [4], "medium": 3, "high": 2}, "cannot hold [4]."),
    ],
)
def test_a_host_value_that_the_column_cannot_hold_is_named(
    checked: Checked, to_host: dict[str, Any], said: str
) -> None:
    (message,) = checked(to_host=to_host)
    assert message.id == "ticket_priority.E019"
    assert said in message.msg


def test_a_value_that_is_too_long_or_too_large_is_named(checked: Checked) -> None:
    short = models.CharField(max_length=5)
    words = {"low": "minor", "medium": "major", "high": "disaster"}
    (message,) = checked(short, to_host=words, from_host=None)
    assert message.id == "ticket_priority.E019"
    assert "'disaster'" in message.msg
    small = models.PositiveSmallIntegerField()
    (message,) = checked(small, to_host={"low": -1, "medium": 3, "high": 2}, from_host=None)
    assert "cannot hold -1." in message.msg


def test_a_key_that_no_row_can_bear_is_named(checked: Checked) -> None:
    (message,) = checked(from_host={"1": "high", 2: "high", 3: "medium", 4: "low", 5: "low"})
    assert message.id == "ticket_priority.E019"
    assert "cannot hold '1'." in message.msg


@pytest.mark.parametrize(
    "options",
    [
        {"from_host": {1: "urgent", 2: "high", 3: "medium", 4: "low", 5: "low"}},
        {"to_host": {"low": 4, "medium": 3, "high": 2, "urgent": 1}, "from_host": None},
    ],
)
def test_a_class_that_does_not_exist_is_named(checked: Checked, options: dict[str, Any]) -> None:
    (message,) = checked(**options)
    assert message.id == "ticket_priority.E022"
    assert message.msg.endswith("do not exist: urgent.")


def test_a_default_that_would_be_taken_for_a_label_is_found(checked: Checked) -> None:
    (message,) = checked(unset=(None,))
    assert message.id == "ticket_priority.W021"
    assert "is 3 wherever nobody chose it" in message.msg
    (message,) = checked(models.IntegerField(db_default=3), unset=(None,))
    assert message.id == "ticket_priority.W021"


def test_a_default_is_no_label_where_it_means_unset_or_rows_are_named(checked: Checked) -> None:
    assert checked(unset=(None, 3)) == []
    assert checked(unset=(None,), labelled=lambda rows: rows.none()) == []
    assert checked(unset=(None,), build=ListingSource) == []
    assert checked(models.IntegerField(default=0), unset=(None,)) == []
    assert checked(models.IntegerField(null=True), unset=(None,)) == []


def test_a_default_that_is_a_class_may_be_a_persons_choice(checked: Checked) -> None:
    (message,) = checked(unset=None)
    assert message.id == "ticket_priority.W034"
    assert "a prediction may replace it" in message.msg
    assert checked(unset=None, build=ListingSource) == []


def test_a_default_that_asks_the_database_waits_for_its_table(checked: Checked) -> None:
    assert checked(models.IntegerField(default=ask_a_table_that_is_not_there)) == []


def test_recorded_changes_want_to_know_whose_request_it_is(checked: Checked, settings: Any) -> None:
    (message,) = checked(record_changes=True)
    assert message.id == "ticket_priority.W017"
    assert MIDDLEWARE in str(message.hint)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]
    assert checked(record_changes=True) == []


def test_the_named_middleware_is_there() -> None:
    from django.utils.module_loading import import_string

    from ticket_priority.middleware import acting_user_middleware

    assert import_string(MIDDLEWARE) is acting_user_middleware


def test_an_adapter_has_its_say(checked: Checked) -> None:
    assert ids(checked(build=InformedSource)) == ["desk.I001"]


def test_an_adapter_whose_check_fails_is_named(checked: Checked) -> None:
    said, failed = checked(build=BrokenSource)
    assert (said.id, failed.id) == ("desk.I001", "ticket_priority.E023")
    assert "no route to host" in failed.msg
    assert "tests.checks.test_settings.BrokenSource" in str(failed.hint)


def test_every_check_is_explained() -> None:
    modules = [*Path(str(checks.__file__)).parent.glob("*.py"), Path(str(django_q.__file__))]
    code = "".join(module.read_text() for module in modules)
    known = set(re.findall(r'"(?:ticket_priority\.)?([EW]\d{3})"', code))
    page = (Path(django_settings.BASE_DIR) / "docs" / "settings.md").read_text()
    explained = re.findall(r"^\| `([EW]\d{3})` \|", page, re.MULTILINE)
    assert sorted(known) == sorted(explained)


def test_deferred_modes_want_a_queue(settings: Any) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "async"}
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django_q"]
    assert not apps.is_installed("django_q")
    assert "ticket_priority.W030" in found_ids()


def test_training_by_the_clock_wants_a_queue(settings: Any) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, TRAINING={"RETRAIN": {}})
    assert found_ids() == set()
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django_q"]
    assert found_ids() == {"ticket_priority.W052"}


@pytest.mark.parametrize(
    ("missing", "model_name", "expected"),
    [
        ("numpy", "linear", {"ticket_priority.W020"}),
        ("safetensors", "embedded", {"ticket_priority.W020"}),
        ("onnxruntime", "embedded", {"ticket_priority.W024"}),
        ("tokenizers", "some/encoder", {"ticket_priority.W024"}),
        ("onnxruntime", "linear", set()),
    ],
)
def test_what_serving_lacks_is_found(
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    model_name: str,
    expected: set[str],
) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY, TRAINING={"MODEL_NAME": model_name}
    )
    monkeypatch.setitem(sys.modules, missing, None)
    assert found_ids() == expected


def test_deferred_sqlite_transactions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connections

    settings_dict = connections["default"].settings_dict
    if "sqlite" not in settings_dict["ENGINE"]:
        pytest.skip("says something of SQLite only")
    monkeypatch.setitem(settings_dict, "OPTIONS", {})
    assert "ticket_priority.W040" in found_ids()
