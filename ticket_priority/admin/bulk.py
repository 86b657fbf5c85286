"""Actions on tickets, many or one, and how their outcome is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist
from django.db import models, router, transaction
from django.http import HttpRequest
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ticket_priority.badges import percent
from ticket_priority.conf import get_settings
from ticket_priority.exceptions import ModelUnavailableError, OverrideRateError
from ticket_priority.models import Prediction
from ticket_priority.predictions.overrides import override
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.predictions.standings import open_suggestions
from ticket_priority.priorities import Priority

VIA: Final = "admin"

State, Reason = Prediction.State, Prediction.Reason
TicketAdmin = admin.ModelAdmin


@admin.action(description=_("Set priority to High"), permissions=["change"])
def set_priority_high(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    _set_priority(admin, request, tickets, Priority.HIGH)


@admin.action(description=_("Set priority to Medium"), permissions=["change"])
def set_priority_medium(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    _set_priority(admin, request, tickets, Priority.MEDIUM)


@admin.action(description=_("Set priority to Low"), permissions=["change"])
def set_priority_low(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    _set_priority(admin, request, tickets, Priority.LOW)


@admin.action(description=_("Accept the suggested priority"), permissions=["change"])
def accept_suggested_priority(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    decisions = _Decisions(admin, request)
    left = 0
    for batch in _batches(admin, request, tickets):
        suggestions = open_suggestions(batch)
        left += len(batch) - len(suggestions)
        with transaction.atomic(using=router.db_for_write(tickets.model)):
            for ticket in batch:
                suggestion = suggestions.get(str(ticket.pk))
                if suggestion is not None:
                    decisions.make(partial(accept, admin, request, ticket, suggestion))
    if decisions.made:
        text = ngettext(
            "%(number)d suggestion was accepted.",
            "%(number)d suggestions were accepted.",
            decisions.made,
        )
        admin.message_user(request, text % {"number": decisions.made}, messages.SUCCESS)
    decisions.tell_refusal()
    if left:
        text = ngettext(
            "%(number)d ticket has no suggestion to accept.",
            "%(number)d tickets have no suggestion to accept.",
            left,
        )
        admin.message_user(request, text % {"number": left}, messages.WARNING)


@admin.action(description=_("Classify, again or for the first time"), permissions=["change"])
def classify_tickets(admin: TicketAdmin[Any], request: HttpRequest, tickets: Any) -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    try:
        for batch in _batches(admin, request, tickets):
            for ticket, prediction in zip(batch, classify_instances(batch), strict=True):
                outcomes[prediction.state, prediction.reason] += 1
                if prediction.state == State.APPLIED:
                    admin.log_change(request, ticket, gettext("Classified again."))
    except ModelUnavailableError as error:
        admin.message_user(request, str(error), messages.ERROR)
    for (state, reason), number in outcomes.items():
        level, text = _told(state, reason, number)
        admin.message_user(request, text, level)


ACTIONS: Final = (
    set_priority_high,
    set_priority_medium,
    set_priority_low,
    accept_suggested_priority,
    classify_tickets,
)


def accept(
    admin: TicketAdmin[Any], request: HttpRequest, ticket: models.Model, suggestion: Prediction
) -> bool:
    """Decide as suggested; False where the ticket is gone. Raises OverrideRateError."""
    if suggestion.priority is None:
        return False
    reason = gettext("Suggestion accepted")
    return _decide(admin, request, ticket, Priority(suggestion.priority), reason)


def outcome_of(prediction: Prediction) -> tuple[int, str]:
    """Return the message level and the message that tell what came of classifying one ticket."""
    level, text = _told(prediction.state, prediction.reason, 1)
    if prediction.priority is None or prediction.reason == Reason.AUDIT:
        return level, text
    says = gettext("The model says %(label)s (%(confidence)s).") % {
        "label": Priority(prediction.priority).label,
        "confidence": percent(prediction.confidence),
    }
    return level, f"{says} {text}"


def _set_priority(
    admin: TicketAdmin[Any], request: HttpRequest, tickets: Any, priority: Priority
) -> None:
    decisions = _Decisions(admin, request)
    for batch in _batches(admin, request, tickets):
        with transaction.atomic(using=router.db_for_write(tickets.model)):
            for ticket in batch:
                decisions.make(partial(_decide, admin, request, ticket, priority))
    number = decisions.made
    text = ngettext(
        "The priority of %(number)d ticket is now %(label)s.",
        "The priority of %(number)d tickets is now %(label)s.",
        number,
    )
    if number or not decisions.refusal:
        admin.message_user(
            request,
            text % {"number": number, "label": priority.label},
            messages.SUCCESS if number else messages.WARNING,
        )
    decisions.tell_refusal()


@dataclass
class _Decisions:
    """Makes decisions until the user has made too many, and counts; leaves the rest alone."""

    admin: TicketAdmin[Any]
    request: HttpRequest
    made: int = 0
    left: int = 0
    refusal: str = ""

    def make(self, decide: Callable[[], bool]) -> None:
        if not self.refusal:
            try:
                self.made += decide()
                return
            except OverrideRateError as error:
                self.refusal = str(error)
        self.left += 1

    def tell_refusal(self) -> None:
        if self.refusal:
            text = ngettext(
                "%(number)d ticket was left as it was.",
                "%(number)d tickets were left as they were.",
                self.left,
            )
            told = f"{self.refusal} {text % {'number': self.left}}"
            self.admin.message_user(self.request, told, messages.ERROR)


def _decide(
    admin: TicketAdmin[Any],
    request: HttpRequest,
    ticket: models.Model,
    priority: Priority,
    reason: str = "",
) -> bool:
    try:
        override(ticket, priority, user=request.user, reason=reason, via=VIA)
    except ObjectDoesNotExist:
        return False
    admin.log_change(
        request, ticket, gettext("Priority set to %(label)s.") % {"label": priority.label}
    )
    return True


def _batches(
    admin: TicketAdmin[Any], request: HttpRequest, tickets: models.QuerySet[Any]
) -> Iterator[list[Any]]:
    """Yield the selected tickets that the user may change, read anew batch by batch."""
    keys = list(tickets.values_list("pk", flat=True))
    rows = tickets.model._base_manager.using(tickets.db)
    size = get_settings().serving.batch_size
    refused = 0
    for start in range(0, len(keys), size):
        found = list(rows.filter(pk__in=keys[start : start + size]))
        allowed = [ticket for ticket in found if admin.has_change_permission(request, ticket)]
        refused += len(found) - len(allowed)
        yield allowed
    if refused:
        text = ngettext(
            "You may not change %(number)d of the tickets.",
            "You may not change %(number)d of the tickets.",
            refused,
        )
        admin.message_user(request, text % {"number": refused}, messages.ERROR)


def _told(state: str, reason: str, number: int) -> tuple[int, str]:
    if state == State.SUGGESTED and reason == Reason.PERSON_DECIDED:
        level, text = (
            messages.INFO,
            ngettext(
                "A person decided the priority, so it stays; the prediction is a suggestion.",
                "A person decided %(number)d priorities, so they stay; the predictions are "
                "suggestions.",
                number,
            ),
        )
    elif state == State.SUGGESTED and reason == Reason.AUDIT:
        level, text = (
            messages.INFO,
            ngettext(
                "The prediction is held back to check the model.",
                "%(number)d predictions are held back to check the model.",
                number,
            ),
        )
    elif state == State.SUGGESTED and reason == Reason.UNCERTIFIED:
        level, text = (
            messages.INFO,
            ngettext(
                "It is below the certified precision, so it is kept as a suggestion.",
                "%(number)d predictions are below the certified precision, so they are kept as "
                "suggestions.",
                number,
            ),
        )
    elif state == State.SUGGESTED:
        level, text = (
            messages.SUCCESS,
            ngettext("It is kept as a suggestion.", "%(number)d suggestions were made.", number),
        )
    elif state == State.APPLIED:
        level, text = (
            messages.SUCCESS,
            ngettext("The priority was set.", "%(number)d priorities were set.", number),
        )
    elif state == State.ABSTAINED:
        level, text = (
            messages.WARNING,
            ngettext("The ticket has no text.", "%(number)d tickets have no text.", number),
        )
    elif state == State.FAILED:
        level, text = (
            messages.ERROR,
            ngettext(
                "The model failed; the log says why.",
                "The model failed at %(number)d tickets; the log says why.",
                number,
            ),
        )
    else:
        level, text = (
            messages.WARNING,
            ngettext(
                "Somebody else changed the priority meanwhile, so it stays.",
                "Somebody else changed %(number)d priorities meanwhile, so they stay.",
                number,
            ),
        )
    return level, text % {"number": number}
