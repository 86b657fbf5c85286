from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.db import connection, models, transaction

import ticket_priority
from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, TYPO
from tests.uuid_host.models import Case
from ticket_priority.models import (
    ModelVersion,
    Override,
    Prediction,
    ShadowPrediction,
    SwitchChange,
)
from ticket_priority.predictions import kill_switch, shadow
from ticket_priority.priorities import Priority
from ticket_priority.sources import registry
from ticket_priority.starter.install import install_linear

TABLES = (Override, Prediction, ShadowPrediction)


def run(*words: str) -> dict[str, int]:
    out = StringIO()
    call_command("erase_priority_data", *words, "--json", stdout=out)
    counts: dict[str, int] = json.loads(out.getvalue())
    return counts


def delete_past_django(ticket: models.Model) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM helpdesk_ticket WHERE id = %s", [ticket.pk])


@pytest.fixture
def tickets(active_model: ModelVersion, django_user_model: Any) -> list[Ticket]:
    """Two tickets, with a row in each table about each of them."""
    ana = django_user_model.objects.create_user("ana")
    install_linear().start_shadow()
    tickets = [Ticket.objects.create(**OUTAGE), Ticket.objects.create(**TYPO)]
    shadow.catch_up()
    for ticket in tickets:
        ticket_priority.override(ticket, Priority.MEDIUM, user=ana, reason="Call me: Ana")
    return tickets


def kept() -> list[set[str]]:
    return [set(table.objects.values_list("object_id", flat=True)) for table in TABLES]


def test_deleting_a_ticket_erases_what_is_kept_about_it(tickets: list[Ticket]) -> None:
    gone, stays = tickets
    gone.delete()
    assert kept() == [{str(stays.pk)}] * 3


def test_what_was_deleted_past_django(tickets: list[Ticket]) -> None:
    gone, stays = tickets
    assert run("--gone") == {}
    delete_past_django(gone)
    expected = {"Override": 1, "Prediction": 1, "ShadowPrediction": 1}
    assert run("--gone", "--dry-run") == expected
    assert kept() == [{str(stays.pk), str(gone.pk)}] * 3
    assert run("--gone") == expected
    assert kept() == [{str(stays.pk)}] * 3


def test_every_page_of_tickets_is_looked_at(
    tickets: list[Ticket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticket_priority.predictions.erasure._AT_ONCE", 1)
    for ticket in tickets:
        delete_past_django(ticket)
    run("--gone")
    assert kept() == [set()] * 3


def test_one_ticket_which_itself_stays(tickets: list[Ticket]) -> None:
    chosen, other = tickets
    run("--ticket", f"helpdesk.Ticket:{chosen.pk}")
    assert kept() == [{str(other.pk)}] * 3
    chosen.refresh_from_db()
    assert chosen.priority == Priority.MEDIUM


def test_a_persons_name_and_words(tickets: list[Ticket], django_user_model: Any) -> None:
    ben = django_user_model.objects.create_user("ben")
    ticket_priority.override(tickets[0], Priority.LOW, user=ben, reason="seen")
    kill_switch.turn(
        on=False, user=django_user_model.objects.get(username="ana"), reason="Ana says"
    )
    assert run("--user", "ana", "--dry-run") == {"Override": 2, "SwitchChange": 1}
    assert Override.objects.filter(reason="Call me: Ana").count() == 2
    assert run("--user", "ana") == {"Override": 2, "SwitchChange": 1}
    assert set(Override.objects.values_list("user__username", "reason", "to_priority")) == {
        (None, "", Priority.MEDIUM),
        ("ben", "seen", Priority.LOW),
    }
    assert SwitchChange.objects.values_list("user", "reason").get() == (None, "")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Say what to erase"),
        (["--ticket", "helpdesk.Ticket"], "is no app_label.Model:PK"),
        (["--ticket", "helpdesk.Nothing:1"], "helpdesk.Nothing"),
        (["--ticket", "helpdesk.Ticket:one"], "cannot be a key"),
        (["--user", "nobody"], "no user 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        run(*words)


@pytest.mark.django_db
def test_nothing_is_erased_where_one_of_the_names_is_wrong(tickets: list[Ticket]) -> None:
    with pytest.raises(CommandError):
        run("--ticket", f"helpdesk.Ticket:{tickets[0].pk}", "--user", "nobody")
    assert all(len(keys) == 2 for keys in kept())


def test_a_ticket_is_deleted_whatever_the_plugins_tables_do(
    tickets: list[Ticket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Any) -> Callable[..., Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
        raise AssertionError

    monkeypatch.setattr("ticket_priority.models.rows.TicketRowQuerySet.delete", broken)
    with transaction.atomic():
        tickets[0].delete()
    assert Ticket.objects.count() == 1
    assert "erase_priority_data --gone" in caplog.text
    assert "Error: " in caplog.text, "what the database says of itself"


class TestNoSource:
    """Rows about tickets of a model that the settings no longer name."""

    @pytest.fixture
    def case(self, active_model: ModelVersion, attach: Callable[..., None]) -> Case:
        attach()
        case = Case.objects.create(body="outage")
        ticket_priority.override(case, Priority.LOW, reason="Mr Smith exaggerates")
        registry.unregister(Case)
        return case

    def test_what_a_deleted_one_left_is_erased(self, case: Case) -> None:
        case.delete()
        assert run("--gone", "--dry-run") == {"Override": 1, "Prediction": 1}
        run("--gone")
        assert kept() == [set()] * 3

    def test_one_that_is_there_keeps_its_rows(self, case: Case) -> None:
        run("--gone")
        assert kept()[0] == {str(case.pk)}

    def test_a_named_one_is_erased(self, case: Case) -> None:
        run("--ticket", f"uuid_host.Case:{case.pk}")
        assert kept() == [set()] * 3

    def test_where_no_source_is_left_at_all(
        self, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "_sources", {})
        case.delete()
        run("--gone")
        assert kept() == [set()] * 3

    def test_of_a_model_that_the_project_lacks_it_says_what_deletes_them(self, case: Case) -> None:
        lost = ContentType.objects.create(app_label="desk", model="issue")
        Override.objects.update(content_type=lost)
        out = StringIO()
        call_command("erase_priority_data", "--gone", stdout=out)
        assert "about desk.issue, which this project does not have" in out.getvalue()
        assert Override.objects.count() == 1
        call_command(
            "remove_stale_contenttypes", "--include-stale-apps", interactive=False, verbosity=0
        )
        assert not Override.objects.exists()
