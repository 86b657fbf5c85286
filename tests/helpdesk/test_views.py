from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.utils import timezone

from helpdesk.models import Comment, Queue, Ticket
from ticket_priority.models import Override, Prediction
from ticket_priority.priorities import Priority

FORM = {
    "requester": "rae@customer.example",
    "subject": "No heating",
    "description": "The radiators on the third floor are cold.",
    "language": "en",
}


class TestOpeningATicket:
    def test_a_stranger_opens_one_and_learns_its_number(self, client: Client, db: None) -> None:
        response = client.post("/", FORM)
        ticket = Ticket.objects.get()
        assert (ticket.subject, ticket.status) == ("No heating", "open")
        assert response.status_code == 302
        page = client.get(response["Location"]).content.decode()
        assert f"#{ticket.pk}" in page
        assert ticket.subject not in page

    def test_the_thanks_page_of_another_browser_shows_no_number(
        self, client: Client, db: None
    ) -> None:
        client.post("/", FORM)
        assert "#" + str(Ticket.objects.get().pk) not in Client().get("/thanks/").content.decode()

    @pytest.mark.parametrize("field", ["requester", "subject", "description", "language"])
    def test_each_missing_field_is_named(self, client: Client, db: None, field: str) -> None:
        page = client.post("/", {**FORM, field: ""}).content.decode()
        assert f'id="id_{field}_error"' in page
        assert 'aria-invalid="true"' in page
        assert not Ticket.objects.exists()

    def test_a_bot_that_fills_the_trap_is_refused_but_a_person_may_send_again(
        self, client: Client, db: None
    ) -> None:
        response = client.post("/", {**FORM, "reference": "http://spam.example"})
        assert not Ticket.objects.exists()
        page = response.content.decode()
        assert "sent by a program" in page
        assert "spam.example" not in page
        assert "The radiators on the third floor" in page

    @pytest.mark.parametrize("language", ["en", "de", "fr", "es", "pt"])
    def test_the_browser_chooses_the_language(
        self, client: Client, db: None, language: str
    ) -> None:
        page = client.get("/", HTTP_ACCEPT_LANGUAGE=f"{language},en;q=0.5").content.decode()
        assert f'<option value="{language}" selected>' in page

    def test_the_queue_field_appears_once_there_are_queues(
        self, client: Client, billing: Queue
    ) -> None:
        assert "Billing" in client.get("/").content.decode()
        client.post("/", {**FORM, "queue": str(billing.pk)})
        assert Ticket.objects.get().queue == billing

    def test_a_form_without_a_csrf_token_is_refused(self, db: None) -> None:
        assert Client(enforce_csrf_checks=True).post("/", FORM).status_code == 403

    def test_markup_in_a_ticket_is_shown_as_text(
        self, agent_client: Client, make_ticket: Any
    ) -> None:
        ticket = make_ticket(subject="<b>x</b>", description="<script>alert(1)</script>\n\nbye")
        page = agent_client.get(ticket.get_absolute_url()).content.decode()
        assert "<script>" not in page
        assert "<b>x</b>" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


AGENT_PATHS = ("", "{pk}/", "{pk}/properties/", "{pk}/comments/", "{pk}/priority/", "{pk}/accept/")


class TestWhoMaySeeTickets:
    @pytest.mark.parametrize("path", AGENT_PATHS)
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_strangers_are_sent_to_the_login_page(
        self, client: Client, make_ticket: Any, path: str, method: str
    ) -> None:
        url = "/tickets/" + path.format(pk=make_ticket().pk)
        response = getattr(client, method)(url)
        assert response.status_code == 302
        assert response["Location"] == f"/login/?next={url}"

    @pytest.mark.parametrize("path", AGENT_PATHS)
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_other_users_are_refused(
        self, client: Client, make_ticket: Any, path: str, method: str
    ) -> None:
        client.force_login(User.objects.create_user("customer"))
        ticket = make_ticket(subject="A secret")
        response = getattr(client, method)("/tickets/" + path.format(pk=ticket.pk))
        assert response.status_code == 403
        assert "A secret" not in response.content.decode()

    def test_staff_need_not_be_in_the_group(self, client: Client, make_ticket: Any) -> None:
        client.force_login(User.objects.create_user("boss", is_staff=True))
        assert client.get(make_ticket().get_absolute_url()).status_code == 200

    def test_a_form_sent_after_the_session_ran_out_leads_back_to_the_ticket(
        self, agent_client: Client, make_ticket: Any
    ) -> None:
        ticket = make_ticket()
        response = agent_client.get(f"/tickets/{ticket.pk}/comments/")
        assert response["Location"] == ticket.get_absolute_url()

    def test_an_agent_logs_in_and_out(self, client: Client, agent: User) -> None:
        given = {"username": "ada", "password": "pass-for-ada"}
        assert client.post("/login/", given)["Location"] == "/tickets/"
        assert client.post("/logout/")["Location"] == "/"
        assert client.get("/tickets/").status_code == 302

    def test_a_ticket_that_is_not_there(self, agent_client: Client) -> None:
        assert agent_client.get("/tickets/999/").status_code == 404


class TestTheQueue:
    def subjects(self, client: Client, query: str = "") -> list[str]:
        context = client.get(f"/tickets/{query}").context
        return [row.ticket.subject for row in context["rows"]]

    def test_high_first_then_unset_then_the_oldest(
        self, agent_client: Client, make_ticket: Any
    ) -> None:
        now = timezone.now()
        for subject, priority, days in (
            ("low", 0, 9),
            ("unset", None, 1),
            ("medium", 1, 9),
            ("high, new", 2, 1),
            ("high, old", 2, 5),
        ):
            make_ticket(subject=subject, priority=priority, created_at=now - timedelta(days=days))
        assert self.subjects(agent_client) == ["high, old", "high, new", "unset", "medium", "low"]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("", {"a", "b"}),
            ("?status=active", {"a", "b"}),
            ("?status=solved", {"c"}),
            ("?status=all", {"a", "b", "c", "d"}),
            ("?status=nonsense", {"a", "b"}),
            ("?priority=low", {"a"}),
            ("?priority=unset", {"b"}),
            ("?priority=7", {"a", "b"}),
            ("?assignee=me", {"a"}),
            ("?assignee=nobody", {"b"}),
            ("?queue=999999", {"a", "b"}),
            ("?status=all&q=KETTLE", {"d"}),
            ("?q=kettle", set()),
            ("?status=all&q=two+tray", {"a", "b", "c"}),
        ],
    )
    def test_filters(
        self, agent_client: Client, agent: User, make_ticket: Any, query: str, found: set[str]
    ) -> None:
        make_ticket(subject="a", priority=Priority.LOW, assignee=agent)
        make_ticket(subject="b", status="pending")
        make_ticket(subject="c", status="solved", priority=Priority.HIGH)
        make_ticket(subject="d", status="closed", description="The kettle.")
        assert set(self.subjects(agent_client, query)) == found

    def test_the_queue_filter_and_a_ticket_number(
        self, agent_client: Client, make_ticket: Any, billing: Queue
    ) -> None:
        ticket = make_ticket(subject="bill", queue=billing)
        make_ticket(subject="other")
        assert self.subjects(agent_client, f"?queue={billing.pk}") == ["bill"]
        assert self.subjects(agent_client, f"?q=%23{ticket.pk}") == ["bill"]

    def test_pages_of_25_keep_the_filters(self, agent_client: Client, make_ticket: Any) -> None:
        for number in range(27):
            make_ticket(subject=f"n{number}", priority=Priority.LOW)
        response = agent_client.get("/tickets/?priority=low")
        assert len(response.context["rows"]) == 25
        assert "priority=low&amp;page=2" in response.content.decode()
        assert len(self.subjects(agent_client, "?priority=low&page=2")) == 2
        assert agent_client.get("/tickets/?page=3").status_code == 404

    def test_each_row_says_where_its_priority_comes_from(
        self, agent_client: Client, make_ticket: Any, make_prediction: Any
    ) -> None:
        make_prediction(make_ticket(subject="auto", priority=Priority.HIGH))
        make_prediction(make_ticket(subject="hint"), state="suggested", confidence=0.61)
        make_prediction(make_ticket(subject="wait"), state="pending", priority=None)
        make_ticket(subject="hand", priority=Priority.LOW)
        page = agent_client.get("/tickets/").content.decode()
        assert "87%" in page
        assert "61%" in page
        assert "waiting" in page
        assert "by hand" in page
        assert page.count('tp-badge--unset">') == 3  # two rows and the tally

    def test_the_number_of_queries_does_not_grow_with_the_tickets(
        self,
        agent_client: Client,
        agent: User,
        make_ticket: Any,
        make_prediction: Any,
        billing: Queue,
        django_assert_max_num_queries: Any,
    ) -> None:
        for number in range(30):
            ticket = make_ticket(subject=str(number), assignee=agent, queue=billing)
            make_prediction(ticket, state="suggested")
        agent_client.get("/tickets/")
        with django_assert_max_num_queries(8):
            response = agent_client.get("/tickets/")
        assert len(response.context["rows"]) == 25


class TestTheTicketPage:
    def test_it_shows_text_comments_and_what_the_model_thinks(
        self,
        agent_client: Client,
        agent: User,
        make_ticket: Any,
        make_prediction: Any,
        django_assert_max_num_queries: Any,
    ) -> None:
        ticket = make_ticket(priority=Priority.HIGH)
        make_prediction(ticket)
        for number in range(8):
            Comment.objects.create(ticket=ticket, author=agent, body=f"comment {number}")
        agent_client.get(ticket.get_absolute_url())
        with django_assert_max_num_queries(9):
            page = agent_client.get(ticket.get_absolute_url()).content.decode()
        assert "Tray two." in page
        assert "comment 7" in page
        for figure in ("87%", "10%", "3%", "model-7"):
            assert figure in page

    def test_status_assignee_and_queue_change(
        self, agent_client: Client, agent: User, make_ticket: Any, billing: Queue
    ) -> None:
        ticket = make_ticket()
        response = agent_client.post(
            f"/tickets/{ticket.pk}/properties/",
            {
                "status": "solved",
                "initial-status": "open",
                "assignee": str(agent.pk),
                "initial-assignee": "",
                "queue": str(billing.pk),
                "initial-queue": "",
            },
        )
        assert response["Location"] == ticket.get_absolute_url()
        ticket.refresh_from_db()
        assert (ticket.status, ticket.assignee, ticket.queue) == ("solved", agent, billing)

    def test_a_page_rendered_before_a_colleagues_change_does_not_undo_it(
        self, agent_client: Client, agent: User, make_ticket: Any
    ) -> None:
        ticket = make_ticket()
        Ticket.objects.filter(pk=ticket.pk).update(status="solved", priority=Priority.HIGH)
        agent_client.post(
            f"/tickets/{ticket.pk}/properties/",
            {
                "status": "open",
                "initial-status": "open",
                "assignee": str(agent.pk),
                "initial-assignee": "",
                "queue": "",
                "initial-queue": "",
            },
        )
        ticket.refresh_from_db()
        assert (ticket.status, ticket.priority, ticket.assignee) == ("solved", 2, agent)

    def test_an_assignee_who_is_no_agent_any_more_stays(
        self, agent_client: Client, make_ticket: Any
    ) -> None:
        gone = User.objects.create_user("gone", is_active=False)
        ticket = make_ticket(assignee=gone)
        page = agent_client.get(ticket.get_absolute_url()).content.decode()
        assert f'<option value="{gone.pk}" selected>gone</option>' in page

    def test_a_ticket_is_not_assigned_to_a_stranger(
        self, agent_client: Client, make_ticket: Any
    ) -> None:
        ticket, stranger = make_ticket(), User.objects.create_user("stranger")
        response = agent_client.post(
            f"/tickets/{ticket.pk}/properties/",
            {"status": "open", "initial-status": "open", "assignee": str(stranger.pk)},
        )
        assert response.status_code == 422
        ticket.refresh_from_db()
        assert ticket.assignee is None

    def test_a_reply_is_mailed_and_a_note_is_not(
        self, agent_client: Client, agent: User, make_ticket: Any
    ) -> None:
        ticket = make_ticket()
        url = f"/tickets/{ticket.pk}/comments/"
        agent_client.post(url, {"body": "We are on our way.", "is_internal": ""})
        agent_client.post(url, {"body": "Bring the selection.", "is_internal": "on"})
        reply, note = Comment.objects.order_by("pk")
        assert (reply.author, reply.is_internal, note.is_internal) == (agent, False, True)
        (sent,) = mail.outbox
        assert sent.to == ["rae@customer.example"]
        assert sent.subject == f"[#{ticket.pk}] Printer jam"
        assert sent.body == "We are on our way."

    def test_a_reply_that_cannot_be_mailed_is_kept_and_the_agent_is_told(
        self, agent_client: Client, make_ticket: Any, settings: Any
    ) -> None:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
        ticket = make_ticket()
        page = agent_client.post(
            f"/tickets/{ticket.pk}/comments/", {"body": "Hello"}, follow=True
        ).content.decode()
        assert "could not be sent" in page
        assert Comment.objects.get().body == "Hello"

    def test_a_reply_to_nobody_is_kept_and_the_agent_is_told(
        self, agent_client: Client, make_ticket: Any
    ) -> None:
        ticket = make_ticket(requester="")
        response = agent_client.post(f"/tickets/{ticket.pk}/comments/", {"body": "Hello"})
        assert response["Location"] == ticket.get_absolute_url()
        assert "no e-mail address" in agent_client.get(response["Location"]).content.decode()
        assert not mail.outbox

    def test_an_empty_comment_is_refused(self, agent_client: Client, make_ticket: Any) -> None:
        response = agent_client.post(f"/tickets/{make_ticket().pk}/comments/", {"body": "  "})
        assert response.status_code == 422
        assert 'id="id_body_error"' in response.content.decode()
        assert not Comment.objects.exists()


class TestThePriorityPanel:
    def test_an_agent_overrules_the_model(
        self, agent_client: Client, agent: User, make_ticket: Any, make_prediction: Any
    ) -> None:
        ticket = make_ticket(priority=Priority.HIGH)
        make_prediction(ticket)
        response = agent_client.post(
            f"/tickets/{ticket.pk}/priority/", {"priority": "0", "reason": "Only a typo."}
        )
        assert response["Location"] == ticket.get_absolute_url()
        ticket.refresh_from_db()
        assert ticket.priority == Priority.LOW
        decision = Override.objects.get()
        assert (decision.from_priority, decision.to_priority, decision.user) == (2, 0, agent)
        page = agent_client.get(ticket.get_absolute_url()).content.decode()
        assert "Only a typo." in page
        assert "set by a person" in page

    def test_confirming_the_models_priority_makes_it_a_persons(
        self, agent_client: Client, make_ticket: Any, make_prediction: Any
    ) -> None:
        ticket = make_ticket(priority=Priority.HIGH)
        make_prediction(ticket)
        assert "set automatically" in agent_client.get(ticket.get_absolute_url()).content.decode()
        agent_client.post(f"/tickets/{ticket.pk}/priority/", {"priority": "2"})
        assert "set by a person" in agent_client.get(ticket.get_absolute_url()).content.decode()
        assert "by hand" in agent_client.get("/tickets/").content.decode()

    @pytest.mark.parametrize("priority", ["", "3", "high", "-1"])
    def test_other_values_are_refused(
        self, agent_client: Client, make_ticket: Any, priority: str
    ) -> None:
        ticket = make_ticket()
        response = agent_client.post(f"/tickets/{ticket.pk}/priority/", {"priority": priority})
        assert response.status_code == 422
        assert not Override.objects.exists()

    @pytest.mark.parametrize("priority", list(Priority))
    def test_a_suggestion_is_accepted(
        self, agent_client: Client, make_ticket: Any, make_prediction: Any, priority: Priority
    ) -> None:
        ticket = make_ticket()
        prediction = make_prediction(ticket, state="suggested", priority=priority)
        assert "Accept" in agent_client.get(ticket.get_absolute_url()).content.decode()
        agent_client.post(f"/tickets/{ticket.pk}/accept/", {"prediction": str(prediction.pk)})
        ticket.refresh_from_db()
        assert ticket.priority == priority
        assert Override.objects.get().to_priority == priority
        assert "Accept" not in agent_client.get(ticket.get_absolute_url()).content.decode()

    def test_a_suggestion_that_was_replaced_meanwhile_is_not_accepted(
        self, agent_client: Client, make_ticket: Any, make_prediction: Any
    ) -> None:
        ticket = make_ticket()
        old = make_prediction(ticket, state="suggested", priority=Priority.LOW)
        make_prediction(ticket, state="suggested", priority=Priority.HIGH)
        page = agent_client.post(
            f"/tickets/{ticket.pk}/accept/", {"prediction": str(old.pk)}, follow=True
        ).content.decode()
        assert "Please look again" in page
        ticket.refresh_from_db()
        assert ticket.priority is None

    def test_a_suggestion_made_after_a_decision_can_be_accepted(
        self, agent_client: Client, make_ticket: Any, make_prediction: Any
    ) -> None:
        ticket = make_ticket()
        agent_client.post(f"/tickets/{ticket.pk}/priority/", {"priority": "0"})
        later = make_prediction(ticket, state="suggested", priority=Priority.HIGH)
        agent_client.post(f"/tickets/{ticket.pk}/accept/", {"prediction": str(later.pk)})
        ticket.refresh_from_db()
        assert ticket.priority == Priority.HIGH

    def test_a_suggestion_that_a_person_passed_over_is_not_offered_again(
        self, agent_client: Client, make_ticket: Any, make_prediction: Any
    ) -> None:
        ticket = make_ticket()
        passed_over = make_prediction(ticket, state="suggested", priority=Priority.HIGH)
        agent_client.post(f"/tickets/{ticket.pk}/priority/", {"priority": "0"})
        assert "Accept" not in agent_client.get(ticket.get_absolute_url()).content.decode()
        assert "Suggested:" not in agent_client.get("/tickets/").content.decode()
        agent_client.post(f"/tickets/{ticket.pk}/accept/", {"prediction": str(passed_over.pk)})
        ticket.refresh_from_db()
        assert ticket.priority == Priority.LOW

    @pytest.mark.parametrize(
        ("state", "reason", "shown"),
        [
            ("pending", "queued", "waiting for the model"),
            ("failed", "no_model", "no model is active"),
            ("abstained", "empty_text", "the ticket has no text"),
        ],
    )
    def test_it_says_why_there_is_no_priority(
        self,
        agent_client: Client,
        make_ticket: Any,
        make_prediction: Any,
        state: str,
        reason: str,
        shown: str,
    ) -> None:
        ticket = make_ticket()
        make_prediction(
            ticket,
            state=state,
            reason=reason,
            priority=None,
            confidence=None,
            prob_low=None,
            prob_medium=None,
            prob_high=None,
            latency_ms=None,
            model_version=None,
        )
        page = agent_client.get(ticket.get_absolute_url()).content.decode()
        assert shown in page
        assert 'class="bars"' not in page

    def test_opening_a_ticket_leaves_a_prediction(self, client: Client, db: None) -> None:
        client.post("/", FORM)
        assert Prediction.objects.latest_for([Ticket.objects.get()])


def test_a_new_ticket_is_classified_and_shown(
    client: Client, agent_client: Client, active_model: Any
) -> None:
    client.post("/", {**FORM, "subject": "outage", "description": "outage"})
    ticket = Ticket.objects.get()
    assert ticket.priority is not None
    page = agent_client.get(ticket.get_absolute_url()).content.decode()
    assert "set automatically" in page
    assert active_model.name in page
