"""escalated-django: a ticket's priority, its SLA deadlines and its activity log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from typing import Any, Final

from django.contrib.contenttypes.models import ContentType
from django.core import checks
from django.db import models, router, transaction
from django.db.models.fields.json import KeyTextTransform
from django.utils import timezone

from ticket_priority.conf import MODES
from ticket_priority.db import after_commit, needs_rollback
from ticket_priority.logs import redacted_traceback
from ticket_priority.ml.text.normalisation import join_fields
from ticket_priority.priorities import Priority
from ticket_priority.sources.base import DecisionRecorder, PriorityChange, TicketSource, UserRows
from ticket_priority.sources.registry import get_source

logger = logging.getLogger(__name__)

_UID: Final = "ticket_priority.escalated"
_OURS: Final = "from_ticket_priority"
_AGENTS_VALUE: Final = "ticket_priority_agents_value"
_FIRST_SUBJECT: Final = "ticket_priority_first_subject"
_ATTACHED_WITHIN: Final = timedelta(minutes=1)
"""How long after a ticket's creation the host may have set the deadlines that it still has."""

_PLACEHOLDERS: Final = frozenset(
    {"Live chat conversation", "(no subject)", "(empty email body)"},
)
_CLOUD: Final = (
    "escalated-django runs in cloud mode: its tickets live in the cloud, and there is nothing here "
    "to classify or to learn from."
)


def visible_tickets(rows: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    """The tickets that the host lets an agent or admin work on. A requester sees none here."""
    from escalated.permissions import is_admin, is_agent
    from escalated.ticket_access import scope_tickets

    if not user.is_authenticated:
        return rows.none()
    allowed: models.QuerySet[Any] = scope_tickets(rows, user)
    return allowed if is_admin(user) or is_agent(user) else allowed.filter(assigned_to=user.pk)


def changeable_tickets(rows: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    """All that are visible: whoever works on a ticket may set its priority, as in the host."""
    return rows


@dataclass(frozen=True)
class EscalatedSource(TicketSource):
    """Tickets of escalated-django.

    In the mode sync the priority is there before the host derives the SLA deadlines from it. A
    prediction that comes later stands in the activity log and moves the deadlines with it. What an
    agent or admin decides, in the host's views, API, bulk actions and macros, is recorded.
    """

    text_fields: tuple[str, ...] = ("subject", "description")
    to_host: Mapping[str, Any] = field(
        default_factory=lambda: {"low": "low", "medium": "medium", "high": "high"}
    )
    from_host: Mapping[Any, str] | None = field(
        default_factory=lambda: {
            "low": "low",
            "medium": "medium",
            "high": "high",
            "urgent": "high",
            "critical": "high",
        }
    )
    created_field: str | None = "created_at"
    visible_to: str | UserRows | None = visible_tickets
    changeable_by: str | UserRows | None = changeable_tickets

    @property
    def unset_values(self) -> tuple[Any, ...]:
        """What stands where nobody chose: the column's default, and the host's setting."""
        from escalated.conf import get_setting

        values = super().unset_values
        if self.unset is None:
            values = (*values, get_setting("DEFAULT_PRIORITY"))
        return values

    def text_of(self, instance: models.Model) -> str:
        """Return the ticket's text, without what the host writes where a sender wrote nothing."""
        return self._joined(instance, {})

    def text_at_creation(self, instance: models.Model) -> str:
        """Return the ticket's text with the subject that it was created with.

        The host's "created" entry holds that; of a former description it keeps nothing.
        """
        if _FIRST_SUBJECT not in instance.__dict__:
            rows = _with_first_subject(self.queryset(instance._state.db))
            instance = rows.filter(pk=instance.pk).first() or instance
        first = instance.__dict__.get(_FIRST_SUBJECT)
        return self._joined(instance, {} if first is None else {"subject": first})

    def _joined(self, instance: models.Model, former: Mapping[str, str]) -> str:
        ticket: Any = instance
        placeholders = _PLACEHOLDERS | {f"Chat from {ticket.guest_name}"}
        texts = (former.get(name, getattr(ticket, name, None)) for name in self.text_fields)
        return join_fields(text for text in texts if text not in placeholders)

    def wants(self, instance: models.Model) -> bool:
        from escalated.support.import_context import ImportContext

        return not ImportContext.is_importing()

    def connect(self, record: DecisionRecorder) -> None:
        from escalated.signals import ticket_created, ticket_priority_changed

        # The host's receivers come first, whatever the order of INSTALLED_APPS.
        for module in ("handlers", "webhook_handlers", "workflow_handlers"):
            import_module(f"escalated.{module}")
        ticket_created.connect(
            follow_host, sender=self.model, dispatch_uid=f"{_UID}.ticket_created"
        )
        ticket_priority_changed.connect(
            partial(learn, record),
            sender=self.model,
            weak=False,
            dispatch_uid=f"{_UID}.ticket_priority_changed",
        )

    def write_history(self, instance: models.Model, change: PriorityChange, *, using: str) -> None:
        if change.at_creation:
            # The host is about to write what it knows of a new ticket, the priority with it.
            return
        is_predicted = change.via in MODES
        _log_activity(instance, change, is_predicted=is_predicted, using=using)
        if is_predicted:
            _move_deadlines(instance.pk, change.before, change.after, using)
        after_commit(partial(tell_host, self.model, instance.pk, change, using), using=using)

    def labelled_rows(
        self, using: str | None = None, *, decided_keys: Any = ()
    ) -> models.QuerySet[Any]:
        """Rows that an agent gave their present priority last, and those with `decided_keys`.

        What `labelled` chooses takes the place of the former.
        """
        if self.labelled is not None:
            chosen = super().labelled_rows(using, decided_keys=decided_keys)
            return _with_first_subject(chosen)
        rows = _with_first_subject(_with_agents_value(self.queryset(using)))
        return rows.filter(self._agents_chose() | models.Q(pk__in=decided_keys))

    def label_of(self, instance: models.Model) -> Priority | None:
        value = self.value_of(instance)
        is_agents = instance.__dict__.get(_AGENTS_VALUE, value) == value
        return self.meaning_of(value) if is_agents else None

    def unset_rows(self, using: str | None = None) -> models.QuerySet[Any]:
        """Rows nobody has decided; an agent who chose the default has."""
        rows = _with_agents_value(self.queryset(using)).filter(self.unset_condition())
        return rows.filter(models.Q(**{f"{_AGENTS_VALUE}__isnull": True}) | ~self._agents_chose())

    def _agents_chose(self) -> models.Q:
        return models.Q(**{_AGENTS_VALUE: models.F(self.host_field.attname)})

    def check(self) -> Iterable[checks.CheckMessage]:
        if reason := self.why_unavailable():
            yield checks.Warning(
                reason,
                hint='Take escalated.Ticket out of TICKET_PRIORITY["SOURCES"], or set '
                'ESCALATED["MODE"] to "self_hosted" or "synced".',
                obj=self.model,
                id="ticket_priority.W060",
            )

    def why_unavailable(self) -> str:
        from escalated.conf import get_setting

        return _CLOUD if get_setting("MODE") == "cloud" else ""


def learn(
    record: DecisionRecorder,
    *,
    ticket: models.Model,
    user: Any,
    old_priority: str,
    new_priority: str,
    **kwargs: Any,
) -> None:
    """Record the priority that an agent or admin set; what rules and imports do has no user."""
    if _OURS not in kwargs and _is_on_staff(user, ticket):
        record(ticket, PriorityChange(old_priority, new_priority, user=user, via="agent"))


def follow_host(*, sender: type[models.Model], ticket: models.Model, **kwargs: Any) -> None:
    """Move the deadlines of a new ticket that a worker classified before the host set them."""
    using = ticket._state.db or router.db_for_write(sender)
    try:
        if get_source(sender).effective_mode == "async":
            _catch_up(ticket, using)
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "The deadlines of a new ticket may be those of its default priority: %s",
            redacted_traceback(error),
        )


def _is_on_staff(user: Any, ticket: Any) -> bool:
    from escalated.permissions import is_admin, is_agent

    try:
        return user is not None and bool(
            is_admin(user) or is_agent(user) or ticket.assigned_to_id == user.pk
        )
    except Exception as error:
        logger.error(
            "Nobody can say whether an agent changed a ticket's priority: %s",
            redacted_traceback(error),
        )
        return False


def _activities(kind: str = "PRIORITY_CHANGED") -> Any:
    from escalated.models import TicketActivity

    # The default manager shows the current request's user less than there is.
    return TicketActivity._base_manager.filter(type=TicketActivity.ActivityType[kind])


def _log_activity(
    instance: models.Model, change: PriorityChange, *, is_predicted: bool, using: str
) -> None:
    from escalated.models import TicketActivity

    user = change.user if getattr(change.user, "is_authenticated", False) else None
    properties = {"old_priority": change.before, "new_priority": change.after}
    if is_predicted:
        properties["predicted"] = True
    if change.reason:
        properties["reason"] = change.reason
    TicketActivity._base_manager.using(using).create(
        ticket_id=instance.pk,
        type=TicketActivity.ActivityType.PRIORITY_CHANGED,
        causer_content_type=None if user is None else ContentType.objects.get_for_model(user),
        causer_object_id=None if user is None else user.pk,
        properties=properties,
    )


def tell_host(model: type[models.Model], pk: Any, change: PriorityChange, using: str) -> None:
    """Send the host's own signal, so that its webhooks, workflows and plugins hear of a change.

    They are spared a change of a ticket that is closed. The cloud that a synced host reports to
    hears of it as well. Never raises.
    """
    try:
        _send_change(model, pk, change, using)
    except Exception as error:
        logger.error(
            "The host did not hear of a change of a ticket's priority: %s",
            redacted_traceback(error),
        )


def _send_change(model: type[models.Model], pk: Any, change: PriorityChange, using: str) -> None:
    from escalated.conf import get_setting
    from escalated.drivers.api_client import HostedApiClient
    from escalated.signals import ticket_priority_changed

    # Read anew: a workflow may save all of it.
    ticket: Any = model._base_manager.using(using).filter(pk=pk).first()
    if ticket is None or not ticket.is_open:
        return
    ticket_priority_changed.send_robust(
        sender=model,
        ticket=ticket,
        user=change.user,
        old_priority=change.before,
        new_priority=change.after,
        **{_OURS: True},
    )
    if get_setting("MODE") == "synced":
        payload = {
            "ticket_id": ticket.pk,
            "reference": ticket.reference,
            "priority": change.after,
            "user_id": getattr(change.user, "pk", None),
        }
        HostedApiClient().emit("ticket.priority_changed", payload)


def _catch_up(ticket: models.Model, using: str) -> None:
    with transaction.atomic(using=using):
        latest = _activities().using(using).filter(ticket=ticket.pk).order_by("pk").last()
        if latest is None or not latest.properties.get("predicted"):
            return
        before, after = latest.properties["old_priority"], latest.properties["new_priority"]
        _move_deadlines(ticket.pk, before, after, using)
        # Whoever saves this object next must not write the former deadlines back.
        fields = ["priority", "first_response_due_at", "resolution_due_at"]
        ticket.refresh_from_db(using=using, fields=fields)


def _move_deadlines(pk: Any, before: str, after: str, using: str) -> None:
    """Give a ticket the deadlines it would have been created with.

    What has been met or missed stays, and so does a deadline that is not the host's own for the
    former priority, or that would have passed already.
    """
    from escalated.models import Ticket

    rows = Ticket._base_manager.using(using).filter(pk=pk)
    ticket = rows.select_related("sla_policy").first()
    if ticket is None or ticket.sla_policy is None:
        return
    policy, moved = ticket.sla_policy, {}
    if ticket.first_response_at is None and not ticket.sla_first_response_breached:
        hours = (policy.get_first_response_hours(value) for value in (before, after))
        moved["first_response_due_at"] = _moved(ticket, ticket.first_response_due_at, *hours)
    is_done = ticket.resolved_at is not None or ticket.closed_at is not None
    if not is_done and not ticket.sla_resolution_breached:
        hours = (policy.get_resolution_hours(value) for value in (before, after))
        moved["resolution_due_at"] = _moved(ticket, ticket.resolution_due_at, *hours)
    former = {name: getattr(ticket, name) for name in moved}
    if moved != former:
        rows.filter(**former).update(**moved)


def _moved(
    ticket: Any, due: datetime | None, hours_before: float | None, hours_after: float | None
) -> datetime | None:
    before, after = (_due(ticket, hours) for hours in (hours_before, hours_after))
    if due is None or before is None:
        is_hosts = due is before
    else:
        is_hosts = abs(due - before) < _ATTACHED_WITHIN
    if not is_hosts:
        return due
    if after is None:
        return None
    # By the difference, since the host counts from the moment at which it attached the policy.
    moved = after if due is None or before is None else due + (after - before)
    return moved if moved > timezone.now() else due


def _due(ticket: Any, hours: float | None) -> datetime | None:
    from escalated.services.sla_service import SlaService

    if hours is None:
        return None
    if ticket.sla_policy.business_hours_only:
        due: datetime = SlaService._add_business_hours(ticket.created_at, hours)
        return due
    opened: datetime = ticket.created_at
    return opened + timedelta(hours=hours)


def _with_agents_value(rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
    """Annotate tickets with the priority of their last logged change, if an agent made it."""
    nobody = models.Value(None, output_field=models.TextField())
    by_requester = models.Q(
        causer_content_type=models.F("ticket__requester_content_type"),
        causer_object_id=models.F("ticket__requester_object_id"),
    )
    value = models.Case(
        models.When(causer_object_id__isnull=True, then=nobody),
        models.When(by_requester, then=nobody),
        default=KeyTextTransform("new_priority", "properties"),
        output_field=models.TextField(),
    )
    changes = _activities().filter(ticket=models.OuterRef("pk")).order_by("-created_at", "-pk")
    latest = changes.annotate(**{_AGENTS_VALUE: value}).values(_AGENTS_VALUE)[:1]
    annotated: models.QuerySet[Any] = rows.annotate(**{_AGENTS_VALUE: models.Subquery(latest)})
    return annotated


def _with_first_subject(rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
    """Annotate tickets with the subject that the host's oldest "created" entry names."""
    entries = _activities("CREATED").filter(ticket=models.OuterRef("pk")).order_by("pk")
    first = entries.annotate(**{_FIRST_SUBJECT: KeyTextTransform("subject", "properties")})
    annotated: models.QuerySet[Any] = rows.annotate(
        **{_FIRST_SUBJECT: models.Subquery(first.values(_FIRST_SUBJECT)[:1])}
    )
    return annotated
