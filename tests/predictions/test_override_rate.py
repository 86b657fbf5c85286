"""OVERRIDE_RATE: how much one person decides, on each path by which people do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import Client
from django.utils import timezone, translation

import ticket_priority
from helpdesk.models import Ticket
from tests.admin.pages import form_of, messages_of
from tests.uuid_host.models import Case
from ticket_priority.exceptions import OverrideRateError
from ticket_priority.models import Override, Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions.overrides import check_override_rate, record_override
from ticket_priority.priorities import Priority

pytestmark = pytest.mark.django_db

LIST = "/admin/helpdesk/ticket/"
REFUSED = "You have decided on as many priorities as one person may (3/hour). Try again in "


@pytest.fixture(autouse=True)
def three_an_hour(configure: Callable[..., None]) -> None:
    configure(DECISIONS={"OVERRIDE_RATE": "3/hour"})


@pytest.fixture
def tickets(db: None) -> list[Ticket]:
    with ticket_priority.muted():
        return [Ticket.objects.create(subject=f"No. {number}", priority=0) for number in range(5)]


def decide(tickets: list[Ticket], user: Any, number: int = 3) -> None:
    for ticket in tickets[:number]:
        ticket_priority.override(ticket, Priority.MEDIUM, user=user)


def priorities() -> list[int | None]:
    return list(Ticket.objects.order_by("pk").values_list("priority", flat=True))


def suggest(ticket: Ticket) -> Prediction:
    return Prediction.objects.create(
        content_type=content_type_of(Ticket),
        object_id=str(ticket.pk),
        mode="suggest",
        state=Prediction.State.SUGGESTED,
        reason=Prediction.Reason.OK,
        priority=2,
        confidence=0.9,
    )


class TestOverride:
    def test_one_too_many_is_refused_and_nothing_is_written(
        self, tickets: list[Ticket], admin_user: User
    ) -> None:
        decide(tickets, admin_user)
        with pytest.raises(OverrideRateError) as caught:
            ticket_priority.override(tickets[3], Priority.HIGH, user=admin_user)
        assert 3_500 < caught.value.wait <= 3_600
        assert str(caught.value) == f"{REFUSED}60 minutes."
        assert priorities() == [1, 1, 1, 0, 0]
        assert tickets[3].priority == 0
        assert Override.objects.count() == 3

    def test_there_is_room_again_when_the_oldest_is_out_of_the_period(
        self, tickets: list[Ticket], admin_user: User
    ) -> None:
        decide(tickets, admin_user)
        oldest = Override.objects.order_by("pk").first()
        assert oldest is not None
        Override.objects.filter(pk=oldest.pk).update(
            created_at=timezone.now() - timedelta(minutes=59, seconds=30)
        )
        with pytest.raises(OverrideRateError, match="in 1 minute") as caught:
            check_override_rate(admin_user)
        assert 0 < caught.value.wait <= 30
        Override.objects.filter(pk=oldest.pk).update(
            created_at=timezone.now() - timedelta(minutes=61)
        )
        ticket_priority.override(tickets[3], Priority.HIGH, user=admin_user)
        with pytest.raises(OverrideRateError):
            check_override_rate(admin_user)

    def test_each_person_has_a_rate_and_nobody_has_none(
        self, tickets: list[Ticket], admin_user: User
    ) -> None:
        decide(tickets, admin_user)
        ticket_priority.override(tickets[3], Priority.HIGH, user=User.objects.create_user("ana"))
        decide(tickets, None, number=5)
        decide(tickets, AnonymousUser(), number=5)

    def test_confirmations_and_what_the_host_records_count(
        self, tickets: list[Ticket], admin_user: User
    ) -> None:
        ticket_priority.override(tickets[0], Priority.LOW, user=admin_user)
        for ticket in tickets[:2]:
            record_override(ticket, before=0, after=2, user=admin_user)
        with pytest.raises(OverrideRateError):
            check_override_rate(admin_user)

    def test_what_the_host_has_written_is_recorded_all_the_same(
        self, tickets: list[Ticket], admin_user: User
    ) -> None:
        decide(tickets, admin_user)
        assert record_override(tickets[3], before=0, after=2, user=admin_user).user == admin_user

    def test_without_a_cap_nothing_is_asked(
        self, admin_user: User, configure: Callable[..., None], django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(1):
            check_override_rate(admin_user)
        configure(DECISIONS={"OVERRIDE_RATE": None})
        with django_assert_num_queries(0):
            check_override_rate(admin_user)

    def test_a_rate_that_cannot_be_read_lets_nobody_decide(
        self, tickets: list[Ticket], admin_user: User, configure: Callable[..., None]
    ) -> None:
        configure(DECISIONS={"OVERRIDE_RATE": "often"})
        with pytest.raises(ValueError, match="'often' is no rate"):
            ticket_priority.override(tickets[0], Priority.HIGH, user=admin_user)
        assert priorities() == [0] * 5

    def test_it_is_said_in_the_persons_language(
        self, tickets: list[Ticket], admin_user: User
    ) -> None:
        decide(tickets, admin_user)
        with translation.override("de"), pytest.raises(OverrideRateError, match="in 60 Minuten"):
            check_override_rate(admin_user)


def test_the_api_answers_429(tickets: list[Ticket], admin_user: User, admin_client: Client) -> None:
    decide(tickets, admin_user)
    url = f"/api/tickets/helpdesk.Ticket/{tickets[3].pk}/override/"
    refused = admin_client.post(url, {"priority": "high"}, content_type="application/json")
    assert refused.status_code == 429
    assert refused.json() == {"detail": f"{REFUSED}60 minutes."}
    assert 3_500 < int(refused["Retry-After"]) <= 3_600
    invalid = admin_client.post(url, {"priority": "urgent"}, content_type="application/json")
    assert invalid.status_code == 400
    assert priorities() == [1, 1, 1, 0, 0]


class TestAdmin:
    def test_an_action_says_how_many_it_did_and_how_many_it_left(
        self, tickets: list[Ticket], admin_client: Client, configure: Callable[..., None]
    ) -> None:
        configure(SERVING={"BATCH_SIZE": 2})
        form = {"action": "set_priority_high", "index": "0"}
        form |= {"_selected_action": [str(ticket.pk) for ticket in tickets]}
        response = admin_client.post(LIST, form, follow=True)
        assert messages_of(response) == [
            "The priority of 3 tickets is now High.",
            f"{REFUSED}60 minutes. 2 tickets were left as they were.",
        ]
        assert sorted(map(str, priorities())) == ["0", "0", "2", "2", "2"]
        again = admin_client.post(LIST, form, follow=True)
        assert messages_of(again) == [f"{REFUSED}60 minutes. 5 tickets were left as they were."]
        assert Override.objects.count() == 3

    def test_accepting_many_suggestions_does_too(
        self, tickets: list[Ticket], admin_client: Client
    ) -> None:
        for ticket in tickets[:4]:
            suggest(ticket)
        form = {"action": "accept_suggested_priority", "index": "0"}
        form |= {"_selected_action": [str(ticket.pk) for ticket in tickets]}
        response = admin_client.post(LIST, form, follow=True)
        assert messages_of(response) == [
            "3 suggestions were accepted.",
            f"{REFUSED}60 minutes. 1 ticket was left as it was.",
            "1 ticket has no suggestion to accept.",
        ]

    def test_accepting_one_suggestion_is_refused(
        self, tickets: list[Ticket], admin_user: User, admin_client: Client
    ) -> None:
        decide(tickets, admin_user)
        suggestion = suggest(tickets[3])
        response = admin_client.post(
            f"{LIST}{tickets[3].pk}/priority/accept/",
            {"prediction": str(suggestion.pk)},
            follow=True,
        )
        assert messages_of(response) == [f"{REFUSED}60 minutes."]
        assert priorities() == [1, 1, 1, 0, 0]

    @pytest.mark.parametrize(
        ("priority", "reason"), [("2", ""), ("0", "It is right.")], ids=["changed", "confirmed"]
    )
    def test_the_form_comes_back_with_what_was_typed(
        self,
        tickets: list[Ticket],
        admin_user: User,
        admin_client: Client,
        priority: str,
        reason: str,
    ) -> None:
        decide(tickets, admin_user)
        page = f"{LIST}{tickets[3].pk}/change/"
        form = form_of(admin_client.get(page), "ticket_form").values
        changes = {"priority": priority, "subject": "New", "ticket_priority_reason": reason}
        response = admin_client.post(page, {**form, **changes})
        assert response.status_code == 200
        assert f"{REFUSED}60 minutes." in response.content.decode()
        shown = form_of(response, "ticket_form").values
        assert (shown["subject"], shown["priority"]) == ("New", priority)
        tickets[3].refresh_from_db()
        assert (tickets[3].subject, tickets[3].priority) == ("No. 3", 0)
        assert Override.objects.count() == 3

    def test_a_form_that_leaves_the_priority_alone_is_saved(
        self, tickets: list[Ticket], admin_user: User, admin_client: Client
    ) -> None:
        decide(tickets, admin_user)
        page = f"{LIST}{tickets[3].pk}/change/"
        form = form_of(admin_client.get(page), "ticket_form").values
        admin_client.post(page, {**form, "subject": "New"})
        tickets[3].refresh_from_db()
        assert tickets[3].subject == "New"

    @pytest.mark.urls("tests.admin.urls")
    def test_an_edited_list_is_saved_as_a_whole_or_not_at_all(
        self, tickets: list[Ticket], admin_client: Client
    ) -> None:
        form = form_of(admin_client.get(LIST), "changelist-form").values
        changes = {f"form-{row}-priority": "2" for row in range(4)}
        response = admin_client.post(LIST, {**form, **changes, "_save": "Save"}, follow=True)
        assert messages_of(response) == [f"{REFUSED}60 minutes. Nothing was changed."]
        assert priorities() == [0] * 5
        assert not Override.objects.exists()
        del changes["form-3-priority"]
        admin_client.post(LIST, {**form, **changes, "_save": "Save"})
        assert Override.objects.count() == 3


class TestDemo:
    def test_the_page_shows_why_a_decision_is_refused(
        self, tickets: list[Ticket], admin_user: User, admin_client: Client
    ) -> None:
        decide(tickets, admin_user)
        url = f"/tickets/{tickets[3].pk}/priority/"
        response = admin_client.post(url, {"priority": "2", "reason": "The boss."})
        assert response.status_code == 422
        page = response.content.decode()
        assert f"{REFUSED}60 minutes." in page
        assert "The boss." in page
        assert priorities() == [1, 1, 1, 0, 0]

    def test_a_suggestion_is_not_accepted(
        self, tickets: list[Ticket], admin_user: User, admin_client: Client
    ) -> None:
        decide(tickets, admin_user)
        suggestion = suggest(tickets[3])
        url = f"/tickets/{tickets[3].pk}/accept/"
        response = admin_client.post(url, {"prediction": str(suggestion.pk)}, follow=True)
        assert messages_of(response) == [f"{REFUSED}60 minutes."]
        assert priorities() == [1, 1, 1, 0, 0]


@pytest.mark.urls("tests.uuid_host.urls")
def test_a_host_that_records_its_changes_is_never_refused(
    attach: Callable[..., None],
    tickets: list[Ticket],
    admin_user: User,
    admin_client: Client,
    settings: Any,
) -> None:
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "ticket_priority.middleware.acting_user_middleware",
    ]
    attach(record_changes=True)
    decide(tickets, admin_user)
    with ticket_priority.muted():
        case = Case.objects.create(body="Lift stuck", urgency=4)
    admin_client.post(f"/cases/{case.pk}/", {"urgency": "2"})
    case.refresh_from_db()
    assert case.urgency == 2
    assert Override.objects.for_instance(case).get().user == admin_user
