"""Actions on tickets, many or one, and the messages about their outcome."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist
from django.db import models, router, transaction
from django.http import HttpRequest
from django.utils.translation import gettext, ngettext, ngettext_lazy
from django.utils.translation import gettext_lazy as _

from ticket_priority.badges import percent
from ticket_priority.conf import get_settings
from ticket_priority.exceptions import (
    ModelUnavailableError,
    OverrideRateError,
    PriorityRefusedError,
)
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.models.rows import has_row
from ticket_priority.predictions.overrides import override
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.predictions.standings import open_suggestions
from ticket_priority.priorities import Priority
from ticket_priority.sources import get_source
from ticket_priority.sources.keys import ticket_key

VIA: Final = "admin"

MOST: Final = 500
"""How many tickets one request works on."""
SECONDS: Final = 10.0
"""How long one request begins with more of them."""

State, Reason = Prediction.State, Prediction.Reason
TicketAdmin = admin.ModelAdmin


_OUTCOMES: Final[Mapping[tuple[str, str | None], tuple[int, Any]]] = {
    (State.SUGGESTED, Reason.PERSON_DECIDED): (
        messages.INFO,
        ngettext_lazy(
            "A person decided the priority, so it stays; the prediction is a suggestion.",
            "A person decided %(number)d priorities, so they stay; the predictions are "
            "suggestions.",
            "number",
        ),
    ),
    (State.SUGGESTED, Reason.AUDIT): (
        messages.INFO,
        ngettext_lazy(
            "The prediction is held back to check the model.",
            "%(number)d predictions are held back to check the model.",
            "number",
        ),
    ),
    (State.SUGGESTED, Reason.UNCERTIFIED): (
        messages.INFO,
        ngettext_lazy(
            "It is below the certified precision, so it is kept as a suggestion.",
            "%(number)d predictions are below the certified precision, so they are kept as "
            "suggestions.",
            "number",
        ),
    ),
    (State.SUGGESTED, Reason.REFUSED): (
        messages.WARNING,
        ngettext_lazy(
            "The helpdesk does not take it, so it is kept as a suggestion; the log says why.",
            "The helpdesk does not take %(number)d predictions, so they are kept as suggestions; "
            "the log says why.",
            "number",
        ),
    ),
    (State.SUGGESTED, None): (
        messages.SUCCESS,
        ngettext_lazy("It is kept as a suggestion.", "%(number)d suggestions were made.", "number"),
    ),
    (State.APPLIED, None): (
        messages.SUCCESS,
        ngettext_lazy("The priority was set.", "%(number)d priorities were set.", "number"),
    ),
    (State.ABSTAINED, None): (
        messages.WARNING,
        ngettext_lazy("The ticket has no text.", "%(number)d tickets have no text.", "number"),
    ),
    (State.FAILED, None): (
        messages.ERROR,
        ngettext_lazy(
            "The model failed; the log says why.",
            "The model failed at %(number)d tickets; the log says why.",
            "number",
        ),
    ),
    (State.SUPERSEDED, None): (
        messages.WARNING,
        ngettext_lazy(
            "Somebody else changed the priority meanwhile, so it stays.",
            "Somebody else changed %(number)d priorities meanwhile, so they stay.",
            "number",
        ),
    ),
}
"""The message, and its level, by state and reason; None: any other reason."""


class TicketActions:
    """What one request does to tickets; it checks permissions, logs, and reports the outcome."""

    def __init__(self, admin: TicketAdmin[Any], request: HttpRequest) -> None:
        self.admin = admin
        self.request = request
        self.decided = 0
        self.refusals: Counter[str] = Counter()
        self.too_many = ""

    def classify(self, tickets: Sequence[models.Model]) -> list[Prediction]:
        """Classify tickets, and log those that got a priority. Raises ModelUnavailableError."""
        predictions = classify_instances(tickets, bounded=True)
        for ticket, prediction in zip(tickets, predictions, strict=True):
            if prediction.state == State.APPLIED:
                self.admin.log_change(self.request, ticket, gettext("Classified again."))
        return predictions

    def accept(self, ticket: models.Model, suggestion: Prediction) -> bool:
        """Decide as suggested; False where the ticket is gone. Raises what `override` does."""
        if suggestion.priority is None:
            return False
        reason = gettext("Suggestion accepted")
        return self.decide(ticket, Priority(suggestion.priority), reason)

    def decide(self, ticket: models.Model, priority: Priority, reason: str = "") -> bool:
        """Set the priority; False where the ticket is gone. Raises what `override` does."""
        try:
            override(ticket, priority, user=self.request.user, reason=reason, via=VIA)
        except ObjectDoesNotExist:
            return False
        text = gettext("Priority set to %(label)s.") % {"label": priority.label}
        self.admin.log_change(self.request, ticket, text)
        return True

    def attempt(self, decide: Callable[[], bool]) -> None:
        """Make a decision and count it, unless it is refused or the user has made too many."""
        if not self.too_many:
            try:
                self.decided += decide()
                return
            except PriorityRefusedError as error:
                self.refusals[str(error)] += 1
                return
            except OverrideRateError as error:
                self.too_many = str(error)
        self.refusals[self.too_many] += 1

    def report_refusals(self) -> None:
        """Tell the user about the decisions that were refused."""
        for why, number in self.refusals.items():
            text = ngettext(
                "%(number)d ticket was left as it was.",
                "%(number)d tickets were left as they were.",
                number,
            )
            self.report(messages.ERROR, f"{why} {text % {'number': number}}")

    def report(self, level: int, text: str) -> None:
        """Show a message to the user."""
        self.admin.message_user(self.request, text, level)

    def batches(self, tickets: models.QuerySet[Any], done: models.Q) -> Iterator[list[Any]]:
        """Yield some of the selected tickets, those that are not `done` first, in batches.

        Each is read again, and left out where the user may not change it. How many are left to a
        further request is reported, and none is begun with after a refusal.
        """
        begun, refused = time.monotonic(), 0
        is_done = models.Case(models.When(done, then=1), default=0)
        first = tickets.annotate(ticket_priority_done=is_done).order_by(
            "ticket_priority_done", "pk"
        )
        keys, left = list(first.values_list("pk", flat=True)[:MOST]), tickets.count()
        rows = tickets.model._base_manager.using(tickets.db)
        size = get_settings().serving.batch_size
        for start in range(0, len(keys), size):
            if self.too_many or time.monotonic() - begun > SECONDS:
                break
            found = list(rows.filter(pk__in=keys[start : start + size]))
            left -= len(keys[start : start + size])
            may_change = self.admin.has_change_permission
            allowed = [ticket for ticket in found if may_change(self.request, ticket)]
            refused += len(found) - len(allowed)
            yield allowed
        if refused:
            text = ngettext(
                "You may not change %(number)d of the tickets.",
                "You may not change %(number)d of the tickets.",
                refused,
            )
            self.report(messages.ERROR, text % {"number": refused})
        if self.too_many:
            self.refusals[self.too_many] += left
        elif left:
            text = ngettext(
                "%(number)d more ticket was selected than one request works on: choose the "
                "action again.",
                "%(number)d more tickets were selected than one request works on: choose the "
                "action again.",
                left,
            )
            self.report(messages.WARNING, text % {"number": left})


@admin.action(description=_("Set priority to High"), permissions=["change"])
def set_priority_high(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    """Set the priority of the tickets to High, as the user's decision."""
    _set_priority(TicketActions(admin, request), tickets, Priority.HIGH)


@admin.action(description=_("Set priority to Medium"), permissions=["change"])
def set_priority_medium(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    """Set the priority of the tickets to Medium, as the user's decision."""
    _set_priority(TicketActions(admin, request), tickets, Priority.MEDIUM)


@admin.action(description=_("Set priority to Low"), permissions=["change"])
def set_priority_low(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    """Set the priority of the tickets to Low, as the user's decision."""
    _set_priority(TicketActions(admin, request), tickets, Priority.LOW)


@admin.action(description=_("Accept the suggested priority"), permissions=["change"])
def accept_suggested_priority(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    """Set each ticket's priority to its open suggestion, as the user's decision."""
    actions = TicketActions(admin, request)
    left = 0
    newest = Prediction.objects.for_model(tickets.model).marked_newest()
    suggested = has_row(newest.filter(state=State.SUGGESTED), tickets)
    for batch in actions.batches(tickets, ~suggested):
        suggestions = open_suggestions(batch)
        left += len(batch) - len(suggestions)
        with transaction.atomic(using=router.db_for_write(tickets.model)):
            for ticket in batch:
                suggestion = suggestions.get(ticket_key(ticket))
                if suggestion is not None:
                    actions.attempt(partial(actions.accept, ticket, suggestion))
    if actions.decided:
        text = ngettext(
            "%(number)d suggestion was accepted.",
            "%(number)d suggestions were accepted.",
            actions.decided,
        )
        actions.report(messages.SUCCESS, text % {"number": actions.decided})
    actions.report_refusals()
    if left:
        text = ngettext(
            "%(number)d ticket has no suggestion to accept.",
            "%(number)d tickets have no suggestion to accept.",
            left,
        )
        actions.report(messages.WARNING, text % {"number": left})


@admin.action(description=_("Classify, again or for the first time"), permissions=["change"])
def classify_tickets(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    """Classify the tickets, again or for the first time."""
    actions = TicketActions(admin, request)
    outcomes: Counter[tuple[str, str]] = Counter()
    version = ModelVersion.objects.filter(is_active=True).values("pk")
    answered = Prediction.objects.for_model(tickets.model).filter(model_version__in=version)
    try:
        for batch in actions.batches(tickets, has_row(answered, tickets)):
            outcomes.update((one.state, one.reason) for one in actions.classify(batch))
    except ModelUnavailableError as error:
        actions.report(messages.ERROR, str(error))
    for (state, reason), number in outcomes.items():
        actions.report(*_outcome(state, reason, number))


ACTIONS: Final = (
    set_priority_high,
    set_priority_medium,
    set_priority_low,
    accept_suggested_priority,
    classify_tickets,
)


def outcome_of(prediction: Prediction) -> tuple[int, str]:
    """Return the level and the text of the message about one ticket that was classified."""
    level, text = _outcome(prediction.state, prediction.reason, 1)
    if prediction.priority is None or prediction.reason == Reason.AUDIT:
        return level, text
    says = gettext("The model says %(label)s (%(confidence)s).") % {
        "label": Priority(prediction.priority).label,
        "confidence": percent(prediction.confidence),
    }
    return level, f"{says} {text}"


def _set_priority(actions: TicketActions, tickets: Any, priority: Priority) -> None:
    done = get_source(tickets.model).condition_of(priority)
    for batch in actions.batches(tickets, done):
        with transaction.atomic(using=router.db_for_write(tickets.model)):
            for ticket in batch:
                actions.attempt(partial(actions.decide, ticket, priority))
    number = actions.decided
    text = ngettext(
        "The priority of %(number)d ticket is now %(label)s.",
        "The priority of %(number)d tickets is now %(label)s.",
        number,
    )
    if number or not actions.refusals:
        level = messages.SUCCESS if number else messages.WARNING
        actions.report(level, text % {"number": number, "label": priority.label})
    actions.report_refusals()


def _outcome(state: str, reason: str, number: int) -> tuple[int, str]:
    level, text = _OUTCOMES.get((state, reason)) or _OUTCOMES[state, None]
    return level, str(text % {"number": number})
