from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse_lazy
from django.utils.translation import gettext as _
from django.views import View
from django.views.generic import CreateView, ListView, TemplateView

from helpdesk.access import AgentRequiredMixin
from helpdesk.forms import (
    CommentForm,
    OpenTicketForm,
    PriorityForm,
    QueueFilterForm,
    TicketPropertiesForm,
)
from helpdesk.mail import send_reply
from helpdesk.models import Ticket, TicketQuerySet
from ticket_priority import override
from ticket_priority.exceptions import OverrideRateError
from ticket_priority.models import Override, Prediction
from ticket_priority.predictions.standings import Standing, open_suggestions, standings
from ticket_priority.priorities import Priority

OPENED_TICKET: Final = "opened_ticket"
ACCEPTED: Final = "suggestion"


class OpenTicketView(CreateView):  # type: ignore[type-arg]
    """The page on which a requester opens a ticket."""

    form_class = OpenTicketForm
    template_name = "helpdesk/open_ticket.html"
    success_url = reverse_lazy("helpdesk:thanks")

    def form_valid(self, form: forms.ModelForm[Ticket]) -> HttpResponse:
        response = super().form_valid(form)
        assert self.object is not None  # noqa: S101
        self.request.session[OPENED_TICKET] = self.object.pk
        return response


class ThanksView(TemplateView):
    """Show the number of the ticket that this browser opened last."""

    template_name = "helpdesk/thanks.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(number=self.request.session.get(OPENED_TICKET), **kwargs)


def judge(tickets: Sequence[Ticket]) -> list[Judgement]:
    """Return the judgement of each ticket, in one query."""
    found = standings(tickets)
    return [Judgement(ticket, found.get(str(ticket.pk))) for ticket in tickets]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A ticket and its newest prediction; `standing` is None where there is none."""

    ticket: Ticket
    standing: Standing | None

    @property
    def prediction(self) -> Prediction | None:
        """The newest one."""
        return None if self.standing is None else self.standing.prediction

    @property
    def is_automatic(self) -> bool:
        """Whether the model set the priority, and nobody has decided since."""
        return (
            self.standing is not None
            and not self.standing.is_decided
            and self.standing.prediction.state == Prediction.State.APPLIED
            and self.standing.prediction.priority == self.ticket.priority
        )

    @property
    def is_pending(self) -> bool:
        return self.prediction is not None and self.prediction.state == Prediction.State.PENDING

    @property
    def is_suggested(self) -> bool:
        """Whether there is a suggestion that an agent may accept."""
        return self.standing is not None and self.standing.is_open

    @property
    def is_unanswered(self) -> bool:
        """Whether classification ended without a priority."""
        ends = (Prediction.State.FAILED, Prediction.State.ABSTAINED)
        return self.prediction is not None and self.prediction.state in ends


class QueueView(AgentRequiredMixin, ListView):  # type: ignore[type-arg]
    """The list of tickets, with filters and counts by priority."""

    template_name = "helpdesk/queue.html"
    paginate_by = 25
    context_object_name = "tickets"

    def get_queryset(self) -> TicketQuerySet:
        self.filter_form = QueueFilterForm(self.request.GET or None)
        wanted: dict[str, Any] = {}
        if self.filter_form.is_bound:
            self.filter_form.is_valid()
            wanted = self.filter_form.cleaned_data
        self.tickets = self._filter(wanted)
        return self._filter_priority(wanted.get("priority", "")).in_working_order()

    def _filter(self, wanted: dict[str, Any]) -> TicketQuerySet:
        tickets = Ticket.objects.all()
        status = wanted.get("status") or QueueFilterForm.ACTIVE
        if status == QueueFilterForm.ACTIVE:
            tickets = tickets.active()
        elif status != QueueFilterForm.ALL:
            tickets = tickets.filter(status=status)
        if wanted.get("queue"):
            tickets = tickets.filter(queue=wanted["queue"])
        if wanted.get("assignee") == "me":
            tickets = tickets.filter(assignee=self.request.user.pk)
        elif wanted.get("assignee") == "nobody":
            tickets = tickets.filter(assignee=None)
        return tickets.search(wanted.get("q") or "")

    def _filter_priority(self, wanted: str) -> TicketQuerySet:
        tickets = self.tickets
        if wanted == "unset":
            tickets = tickets.filter(priority=None)
        elif wanted:
            tickets = tickets.filter(priority=Priority.from_slug(wanted))
        return tickets.select_related("queue", "assignee").defer("description")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        counts = dict(self.tickets.order_by().values_list("priority").annotate(number=Count("pk")))
        chosen = self.request.GET.get("priority", "")
        context.update(
            filter_form=self.filter_form,
            rows=judge(context["tickets"]),
            tallies=[
                (slug, priority, counts.get(priority, 0), slug == chosen)
                for slug, priority in (
                    *((priority.slug, priority) for priority in reversed(Priority)),
                    ("unset", None),
                )
            ],
            total=sum(counts.values()),
            chosen_priority=chosen,
        )
        return context


class TicketView(AgentRequiredMixin, View):
    """The ticket page."""

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        self.pk: int = kwargs["pk"]

    def get_ticket(self) -> Ticket:
        return get_object_or_404(Ticket.objects.select_related("queue", "assignee"), pk=self.pk)

    def get_user(self) -> User:
        user = self.request.user
        assert isinstance(user, User)  # noqa: S101
        return user

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self.show(self.get_ticket())

    def show(self, ticket: Ticket, **bound: forms.BaseForm) -> HttpResponse:
        context: dict[str, Any] = {
            "ticket": ticket,
            "judgement": judge([ticket])[0],
            "comments": ticket.comments.select_related("author"),
            "overrides": Override.objects.for_instance(ticket).select_related("user"),
            "properties_form": TicketPropertiesForm(instance=ticket),
            "comment_form": CommentForm(),
            "priority_form": PriorityForm(initial={"priority": ticket.priority}),
            **bound,
        }
        return render(self.request, "helpdesk/ticket.html", context, status=422 if bound else 200)


class TicketActionView(TicketView):
    """Handle one form of the ticket page, and show the page with its errors when it is invalid."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        # After a session has expired, the login page redirects here.
        return redirect("helpdesk:ticket", pk=pk)


class PropertiesView(TicketActionView):
    """Change the status, the assignee or the queue."""

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        ticket = self.get_ticket()
        form = TicketPropertiesForm(request.POST, instance=ticket)
        if not form.is_valid():
            return self.show(self.get_ticket(), properties_form=form)
        form.save()
        if form.changed_data:
            messages.success(request, _("The ticket is updated."))
        return redirect(ticket)


class CommentView(TicketActionView):
    """Add a note, or a reply that is also sent by e-mail."""

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        ticket = self.get_ticket()
        form = CommentForm(request.POST)
        if not form.is_valid():
            return self.show(ticket, comment_form=form)
        comment = form.save(commit=False)
        comment.ticket, comment.author = ticket, self.get_user()
        comment.save()
        ticket.save(update_fields=["updated_at"])
        beside_comment = redirect(f"{ticket.get_absolute_url()}#comment-{comment.pk}")
        if comment.is_internal:
            messages.success(request, _("The note is saved."))
            return beside_comment
        if send_reply(comment):
            messages.success(
                request, _("The reply was sent to %(address)s.") % {"address": ticket.requester}
            )
            return beside_comment
        if ticket.requester:
            warning = _("The reply is saved, but the mail could not be sent.")
        else:
            warning = _("The reply is saved. The ticket has no e-mail address to send it to.")
        messages.warning(request, warning)
        # To the top of the page, where the warning is.
        return redirect(ticket)


class PriorityView(TicketActionView):
    """Set the priority, as the decision of the user."""

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        ticket = self.get_ticket()
        form = PriorityForm(request.POST)
        if not form.is_valid():
            return self.show(ticket, priority_form=form)
        chosen = Priority(form.cleaned_data["priority"])
        reason = form.cleaned_data["reason"]
        try:
            override(ticket, chosen, user=self.get_user(), reason=reason, via="page")
        except OverrideRateError as error:
            form.add_error("priority", str(error))
            return self.show(ticket, priority_form=form)
        messages.success(request, _("The priority is now %(label)s.") % {"label": chosen.label})
        return redirect(ticket)


class AcceptSuggestionView(TicketActionView):
    """Accept the suggestion that the page showed, unless another has replaced it since."""

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        ticket = self.get_ticket()
        suggestion = open_suggestions([ticket]).get(str(ticket.pk))
        if (
            suggestion is None
            or suggestion.priority is None
            or str(suggestion.pk) != request.POST.get("prediction")
        ):
            messages.warning(
                request, _("The suggestion has changed in the meantime. Please look again.")
            )
            return redirect(ticket)
        chosen = Priority(suggestion.priority)
        try:
            override(ticket, chosen, user=self.get_user(), via=ACCEPTED)
        except OverrideRateError as error:
            messages.error(request, str(error))
            return redirect(ticket)
        messages.success(request, _("The priority is now %(label)s.") % {"label": chosen.label})
        return redirect(ticket)
