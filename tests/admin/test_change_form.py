from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client

from helpdesk.admin import TicketAdmin
from helpdesk.models import Ticket
from tests.admin.conftest import MakePrediction, MakeTicket
from tests.admin.pages import Form, form_of, forms_of, messages_of
from tests.admin.urls import EditableListAdmin
from tests.predictions.test_on_save import OUTAGE, TYPO
from tests.uuid_host.models import Case
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.overrides import override
from ticket_priority.priorities import Priority
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import register

URL = "/admin/helpdesk/ticket/"
CASES = "/admin/uuid_host/case/"
REASON = "ticket_priority_reason"
second_site = pytest.mark.urls("tests.admin.urls")

State, Reason = Prediction.State, Prediction.Reason


def page_of(ticket: Any, url: str = URL) -> str:
    return f"{url}{ticket.pk}/change/"


def opened(client: Client, ticket: Any) -> Form:
    """Return the form as the browser holds it."""
    return form_of(client.get(page_of(ticket)), "ticket_form")


def sent(client: Client, ticket: Any, form: Form, **changes: Any) -> Any:
    response = client.post(page_of(ticket), {**form.values, **changes}, follow=True)
    assert response.redirect_chain, response.context["errors"]
    return response


class TestDeciding:
    def test_a_changed_priority_is_an_override(
        self,
        admin_client: Client,
        admin_user: Any,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
    ) -> None:
        ticket = make_ticket(priority=0)
        prediction = make_prediction(ticket, priority=0)
        form = opened(admin_client, ticket)
        sent(admin_client, ticket, form, priority="2", subject="New", **{REASON: "The boss."})
        ticket.refresh_from_db()
        assert (ticket.priority, ticket.subject) == (2, "New")
        record = Override.objects.for_instance(ticket).get()
        assert (record.from_priority, record.to_priority) == (0, 2)
        assert (record.user, record.reason, record.via) == (admin_user, "The boss.", "admin")
        assert record.prediction == prediction

    def test_saving_without_touching_the_priority_is_none(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket(priority=1)
        sent(admin_client, ticket, opened(admin_client, ticket), subject="New")
        ticket.refresh_from_db()
        assert (ticket.priority, ticket.subject) == (1, "New")
        assert not Override.objects.exists()

    def test_a_reason_alone_confirms(self, admin_client: Client, make_ticket: MakeTicket) -> None:
        ticket = make_ticket(priority=1)
        sent(admin_client, ticket, opened(admin_client, ticket), **{REASON: "Asked them."})
        record = Override.objects.get()
        assert (record.from_priority, record.to_priority) == (1, 1)
        assert record.reason == "Asked them."

    def test_a_reason_without_a_priority_is_not_lost_silently(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket()
        response = sent(admin_client, ticket, opened(admin_client, ticket), **{REASON: "Hm."})
        assert not Override.objects.exists()
        assert "The reason was not kept" in messages_of(response)[0]

    def test_the_priority_can_be_unset(self, admin_client: Client, make_ticket: MakeTicket) -> None:
        ticket = make_ticket(priority=2)
        sent(admin_client, ticket, opened(admin_client, ticket), priority="")
        ticket.refresh_from_db()
        assert ticket.priority is None
        assert not Override.objects.exists()

    def test_an_invalid_form_records_nothing_and_keeps_what_was_typed(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket(priority=0)
        values = {
            **opened(admin_client, ticket).values,
            "priority": "2",
            "subject": "",
            REASON: "Typed.",
        }
        response = admin_client.post(page_of(ticket), values)
        assert response.context["errors"]
        assert not Override.objects.exists()
        again = form_of(response, "ticket_form").values
        assert (again["priority"], again["initial-priority"], again[REASON]) == ("2", "0", "Typed.")
        assert response.context["ticket_priority"].priority == Priority.LOW

    @second_site
    def test_the_hosts_numbers_are_translated(
        self, admin_client: Client, make_case: MakeTicket
    ) -> None:
        case = make_case(urgency=5)
        form = form_of(admin_client.get(page_of(case, CASES)), "case_form")
        admin_client.post(page_of(case, CASES), {**form.values, "urgency": "1"})
        case.refresh_from_db()
        assert case.urgency == 1
        record = Override.objects.get()
        assert (record.from_priority, record.to_priority) == (0, 2)
        assert record.object_id == str(case.pk)

    @second_site
    def test_choosing_the_value_that_elsewhere_means_unset_is_a_decision(
        self, admin_client: Client, make_case: MakeTicket, case_source: TicketSource
    ) -> None:
        register(
            Case,
            text_fields=("body",),
            priority_field="urgency",
            to_host=case_source.to_host,
            from_host=case_source.from_host,
            unset=(None, 3),
        )
        case = make_case(urgency=1)
        form = form_of(admin_client.get(page_of(case, CASES)), "case_form")
        admin_client.post(page_of(case, CASES), {**form.values, "urgency": "3"})
        record = Override.objects.get()
        assert (record.from_priority, record.to_priority) == (2, 1)


class TestStaleForms:
    def test_a_prediction_applied_meanwhile_stays_and_is_no_override(
        self, active_model: ModelVersion, admin_client: Client, settings: Any
    ) -> None:
        settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "async"}
        ticket = Ticket.objects.create(**OUTAGE)
        form = opened(admin_client, ticket)
        assert form.values["priority"] == ""
        assert outbox.drain() == 1
        sent(admin_client, ticket, form, status="solved")
        ticket.refresh_from_db()
        assert (ticket.priority, ticket.status) == (Priority.HIGH, "solved")
        assert not Override.objects.exists()
        assert Prediction.objects.get().state == State.APPLIED

    def test_a_decision_on_a_stale_form_overrules_what_is_there_now(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket()
        form = opened(admin_client, ticket)
        Ticket.objects.update(priority=Priority.HIGH)
        sent(admin_client, ticket, form, priority="0")
        ticket.refresh_from_db()
        assert ticket.priority == Priority.LOW
        record = Override.objects.get()
        assert (record.from_priority, record.to_priority) == (2, 0)

    def test_deciding_what_the_model_said_meanwhile_confirms_it(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket()
        form = opened(admin_client, ticket)
        Ticket.objects.update(priority=Priority.HIGH)
        sent(admin_client, ticket, form, priority="2")
        record = Override.objects.get()
        assert (record.from_priority, record.to_priority) == (2, 2)

    def test_a_reason_for_a_priority_that_is_no_longer_there_confirms_nothing(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket(priority=0)
        form = opened(admin_client, ticket)
        Ticket.objects.update(priority=Priority.HIGH)
        response = sent(admin_client, ticket, form, **{REASON: "Fine as it is."})
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH
        assert not Override.objects.exists()
        assert "The reason was not kept" in messages_of(response)[0]

    def test_a_client_that_sends_no_initial_value_decides_by_difference(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket(priority=1)
        form = opened(admin_client, ticket)
        del form.values["initial-priority"]
        sent(admin_client, ticket, form, subject="New")
        assert not Override.objects.exists()
        sent(admin_client, ticket, form, priority="0")
        assert Override.objects.get().to_priority == Priority.LOW


class TestPrioritiesThatTheFormDoesNotAskFor:
    @pytest.fixture
    def worker_is_quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a worker write High between the reading of a ticket and its saving."""

        def clean(ticket: Ticket) -> None:
            Ticket.objects.filter(pk=ticket.pk).update(priority=Priority.HIGH)

        monkeypatch.setattr(Ticket, "clean", clean)

    @pytest.fixture
    def readonly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(TicketAdmin, "readonly_fields", ("priority", "created_at"))

    def test_a_prediction_applied_meanwhile_stays(
        self, readonly: None, worker_is_quick: None, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket()
        form = opened(admin_client, ticket)
        assert "priority" not in form.values
        sent(admin_client, ticket, form, subject="New")
        ticket.refresh_from_db()
        assert (ticket.priority, ticket.subject) == (Priority.HIGH, "New")
        assert not Override.objects.exists()

    def test_what_the_hosts_own_code_sets_is_saved(
        self,
        readonly: None,
        worker_is_quick: None,
        admin_client: Client,
        make_ticket: MakeTicket,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def save_form(self: TicketAdmin, request: Any, form: Any, change: bool) -> Any:
            form.instance.priority = Priority.MEDIUM
            return form.save(commit=False)

        monkeypatch.setattr(TicketAdmin, "save_form", save_form)
        ticket = make_ticket()
        sent(admin_client, ticket, opened(admin_client, ticket), subject="New")
        ticket.refresh_from_db()
        assert ticket.priority == Priority.MEDIUM
        assert not Override.objects.exists()

    def test_a_new_ticket_is_saved_as_it_is(
        self, readonly: None, active_model: ModelVersion, admin_client: Client
    ) -> None:
        form = form_of(admin_client.get(f"{URL}add/"), "ticket_form")
        admin_client.post(f"{URL}add/", {**form.values, **OUTAGE})
        assert Ticket.objects.get().priority == Priority.HIGH

    @second_site
    def test_a_list_that_edits_other_columns_leaves_the_priority_alone(
        self,
        worker_is_quick: None,
        admin_client: Client,
        make_ticket: MakeTicket,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(EditableListAdmin, "list_editable", ("subject",))
        ticket = make_ticket()
        form = form_of(admin_client.get(URL), "changelist-form")
        admin_client.post(URL, {**form.values, "form-0-subject": "New", "_save": "Save"})
        ticket.refresh_from_db()
        assert (ticket.priority, ticket.subject) == (Priority.HIGH, "New")


class TestAdding:
    def add(self, client: Client, **values: Any) -> Ticket:
        form = form_of(client.get(f"{URL}add/"), "ticket_form")
        assert REASON not in form.values
        response = client.post(f"{URL}add/", {**form.values, **values}, follow=True)
        assert response.redirect_chain, response.context["errors"]
        return Ticket.objects.get()

    def test_a_priority_given_by_staff_stands_and_nothing_is_predicted(
        self, active_model: ModelVersion, admin_client: Client
    ) -> None:
        ticket = self.add(admin_client, **OUTAGE, priority="0")
        assert ticket.priority == Priority.LOW
        assert not Prediction.objects.exists()
        assert not Override.objects.exists()

    def test_an_empty_priority_is_predicted(
        self, active_model: ModelVersion, admin_client: Client
    ) -> None:
        ticket = self.add(admin_client, **OUTAGE)
        assert ticket.priority == Priority.HIGH
        assert Prediction.objects.get().state == State.APPLIED
        assert not Override.objects.exists()


class TestPanel:
    def test_predictions_probabilities_and_decisions_are_shown(
        self,
        admin_client: Client,
        admin_user: Any,
        version: ModelVersion,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
    ) -> None:
        ticket = make_ticket(priority=2)
        make_prediction(ticket, priority=2, model_version=version)
        page = admin_client.get(page_of(ticket)).content.decode()
        assert "set by the model" in page
        assert "87%" in page
        assert version.name in page
        override(ticket, Priority.LOW, user=admin_user, reason="Only <b>annoying</b>.")
        page = admin_client.get(page_of(ticket)).content.decode()
        assert "set by a person" in page
        assert "Only &lt;b&gt;annoying&lt;/b&gt;." in page

    def test_other_tickets_are_not(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        ticket, other = make_ticket(priority=0), make_ticket(priority=0)
        override(other, Priority.HIGH, reason="Not about this one.")
        page = admin_client.get(page_of(ticket)).content.decode()
        assert "Not about this one." not in page

    @second_site
    def test_uuid_keys(
        self, admin_client: Client, make_case: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        case = make_case()
        make_prediction(case, priority=2, state=State.SUGGESTED)
        override(case, Priority.LOW, reason="Seen before.")
        page = admin_client.get(page_of(case, CASES)).content.decode()
        assert "Seen before." in page
        assert "suggested" in page

    def test_forms_do_not_nest(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        ticket = make_ticket()
        make_prediction(ticket, priority=2, state=State.SUGGESTED)
        forms = forms_of(admin_client.get(page_of(ticket)))
        assert {form.depth for form in forms} == {0}
        assert sum("/priority/" in form.action for form in forms) == 2

    @second_site
    def test_a_hosts_own_template_form_and_fieldsets_are_kept(
        self, admin_client: Client, make_ticket: MakeTicket, settings: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "own_change_form.html").write_text(
            '{% extends "admin/change_form.html" %}'
            "{% block form_top %}the host's own words{% endblock %}"
        )
        settings.TEMPLATES = [{**django_settings.TEMPLATES[0], "DIRS": [tmp_path]}]
        ticket = make_ticket(priority=1)
        response = admin_client.get(page_of(ticket))
        page = response.content.decode()
        assert "the host's own words" in page
        assert "tp-panel" in page
        names = list(response.context["adminform"].fieldsets[0][1]["fields"])
        assert names == ["subject", ("priority", REASON, "description")]


class TestButtons:
    def press(self, client: Client, ticket: Any, word: str, **changes: Any) -> list[str]:
        form = form_of(client.get(page_of(ticket)), f"/priority/{word}/")
        response = client.post(form.action, {**form.values, **changes}, follow=True)
        return messages_of(response)

    def test_classify_again(
        self, active_model: ModelVersion, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket(**OUTAGE)
        (told,) = self.press(admin_client, ticket, "classify")
        assert told.startswith("The model says High (")
        assert told.endswith("The priority was set.")
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH

    def test_classify_keeps_a_persons_decision_and_offers_the_suggestion(
        self, active_model: ModelVersion, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket(**TYPO, priority=2)
        override(ticket, Priority.HIGH)
        (told,) = self.press(admin_client, ticket, "classify")
        assert "A person decided the priority" in told
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH
        assert self.press(admin_client, ticket, "accept") == ["The priority is now Low."]
        ticket.refresh_from_db()
        assert ticket.priority == Priority.LOW
        assert Override.objects.count() == 2
        forms = forms_of(admin_client.get(page_of(ticket)))
        assert not any("/priority/accept/" in form.action for form in forms)

    def test_classify_without_a_model(
        self, fresh_classifier: None, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        (told,) = self.press(admin_client, make_ticket(), "classify")
        assert "No model version is active" in told

    def test_a_suggestion_that_was_replaced_is_not_accepted(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        ticket = make_ticket()
        make_prediction(ticket, priority=2, state=State.SUGGESTED)
        form = form_of(admin_client.get(page_of(ticket)), "/priority/accept/")
        make_prediction(ticket, priority=0, state=State.SUGGESTED)
        response = admin_client.post(form.action, form.values, follow=True)
        assert "has changed in the meantime" in messages_of(response)[0]
        ticket.refresh_from_db()
        assert ticket.priority is None

    def test_a_suggestion_with_a_long_number_is_accepted(
        self,
        admin_client: Client,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
        settings: Any,
    ) -> None:
        settings.USE_THOUSAND_SEPARATOR = True
        ticket = make_ticket()
        make_prediction(ticket, pk=1_234_567, priority=2, state=State.SUGGESTED)
        form = form_of(admin_client.get(page_of(ticket)), "/priority/accept/")
        response = admin_client.post(form.action, form.values, follow=True)
        assert messages_of(response) == ["The priority is now High."]
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH

    def test_the_list_one_came_from_is_not_forgotten(
        self, active_model: ModelVersion, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket(**OUTAGE)
        query = {"_changelist_filters": "status__exact=open"}
        page = admin_client.get(page_of(ticket), query)
        response = admin_client.post(form_of(page, "/priority/classify/").action)
        assert response["Location"] == f"{page_of(ticket)}?_changelist_filters=status__exact%3Dopen"

    @pytest.mark.parametrize("word", ["classify", "accept"])
    def test_get_changes_nothing(
        self,
        active_model: ModelVersion,
        admin_client: Client,
        make_ticket: MakeTicket,
        word: str,
    ) -> None:
        ticket = make_ticket(**OUTAGE)
        response = admin_client.get(f"{URL}{ticket.pk}/priority/{word}/")
        assert response["Location"] == page_of(ticket)
        assert not Prediction.objects.exists()

    @pytest.mark.parametrize("word", ["classify", "accept"])
    def test_a_forged_post_is_refused(
        self, admin_user: Any, make_ticket: MakeTicket, make_prediction: MakePrediction, word: str
    ) -> None:
        ticket = make_ticket()
        row = make_prediction(ticket, priority=2, state=State.SUGGESTED)
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        url = f"{URL}{ticket.pk}/priority/{word}/"
        assert client.post(url, {"prediction": row.pk}).status_code == 403
        assert Prediction.objects.count() == 1
        assert not Override.objects.exists()

    @pytest.mark.parametrize("word", ["classify", "accept"])
    def test_who_may_only_view_is_refused_and_offered_nothing(
        self,
        client_with: Callable[..., Client],
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
        word: str,
    ) -> None:
        ticket = make_ticket(priority=0)
        row = make_prediction(ticket, priority=2, state=State.SUGGESTED)
        client = client_with("view_ticket")
        page = client.get(page_of(ticket))
        assert "tp-panel" in page.content.decode()
        assert not any("/priority/" in form.action for form in forms_of(page))
        url = f"{URL}{ticket.pk}/priority/{word}/"
        assert client.post(url, {"prediction": row.pk}).status_code == 403
        assert not Override.objects.exists()

    def test_a_ticket_that_is_not_there(self, admin_client: Client) -> None:
        assert admin_client.post(f"{URL}999/priority/classify/").status_code == 404
