"""escalated-django: its priorities, its agents, and its activity log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Final

from django.contrib.contenttypes.models import ContentType
from django.core import checks
from django.db import models, router, transaction
from django.db.models.fields.json import KeyTextTransform

from ticket_priority.adapters.escalated_deadlines import move_deadlines
from ticket_priority.conf import MODES
from ticket_priority.db import after_commit, needs_rollback
from ticket_priority.logs import redacted_traceback
from ticket_priority.ml.text.normalisation import join_fields
from ticket_priority.priorities import Priority
from ticket_priority.sources import DecisionRecorder, PriorityChange, TicketSource, UserRows
from ticket_priority.sources.registry import get_source

logger = logging.getLogger(__name__)

_TO_HOST: Final[dict[str, Any]] = {"low": "low", "medium": "medium", "high": "high"}
_UID: Final = "ticket_priority.escalated"
_OURS: Final = "from_ticket_priority"
_AGENTS_VALUE: Final = "ticket_priority_agents_value"
_FIRST_SUBJECT: Final = "ticket_priority_first_subject"
_PLACEHOLDERS: Final = frozenset({"Live chat conversation", "(no subject)", "(empty email body)"})
_CLOUD: Final = (
    "escalated-django runs in cloud mode: its tickets are stored in the cloud, so there are none "
    "here to classify or to train on."
)


def visible_tickets(rows: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    """Keep the tickets that the host lets an agent or admin work on; none for a requester."""
    from escalated.permissions import is_admin, is_agent
    from escalated.ticket_access import scope_tickets

    if not user.is_authenticated:
        return rows.none()
    allowed: models.QuerySet[Any] = scope_tickets(rows, user)
    return allowed if is_admin(user) or is_agent(user) else allowed.filter(assigned_to=user.pk)


def changeable_tickets(rows: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    """Keep all visible tickets: as in the host, whoever works on a ticket may set its priority."""
    return rows


@dataclass(frozen=True)
class EscalatedSource(TicketSource):
    """Tickets of escalated-django.

    In sync mode the priority is set before the host derives the SLA deadlines from it. A later
    prediction is written to the activity log and moves the deadlines. Decisions of agents and
    admins in the host's views, API, bulk actions and macros are recorded.
    """

    text_fields: tuple[str, ...] = ("subject", "description")
    to_host: Mapping[str, Any] = field(default_factory=_TO_HOST.copy)
    from_host: Mapping[Any, str] | None = field(
        default_factory=lambda: _TO_HOST | {"urgent": "high", "critical": "high"}
    )
    created_field: str | None = "created_at"
    visible_to: str | UserRows | None = visible_tickets
    changeable_by: str | UserRows | None = changeable_tickets

    @property
    def unset_values(self) -> tuple[Any, ...]:
        """The column's default, and the host's default priority."""
        from escalated.conf import get_setting

        values = super().unset_values
        if self.unset is None:
            values = (*values, get_setting("DEFAULT_PRIORITY"))
        return values

    def text_of(self, instance: models.Model) -> str:
        """Return the ticket's text, without the host's placeholders for missing texts."""
        return self._joined(instance, {})

    def text_at_creation(self, instance: models.Model) -> str:
        """Return the ticket's text with its first subject, which the host's "created" entry holds.

        The host does not keep a former description.
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
        """Refuse tickets that the host imports."""
        from escalated.support.import_context import ImportContext

        return not ImportContext.is_importing()

    def connect(self, record: DecisionRecorder) -> None:
        """Connect to the host's signals, after the host's own receivers."""
        from escalated.signals import ticket_created, ticket_priority_changed

        # Imported to connect the host's receivers first, whatever the order of INSTALLED_APPS.
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
        """Log a change, move the deadlines after a prediction, and send the host's signal."""
        if change.at_creation:
            # The host itself logs a new ticket with its priority.
            return
        is_predicted = change.via in MODES
        _log_activity(instance, change, is_predicted=is_predicted, using=using)
        if is_predicted:
            move_deadlines(instance.pk, change.before, change.after, using)
        after_commit(partial(send_host_signal, self.model, instance.pk, change, using), using=using)

    def labelled_rows(
        self, using: str | None = None, *, decided_keys: Any = ()
    ) -> models.QuerySet[Any]:
        """Return rows whose present priority an agent set, and those with `decided_keys`.

        `labelled` replaces the first condition.
        """
        if self.labelled is not None:
            chosen = super().labelled_rows(using, decided_keys=decided_keys)
            return _with_first_subject(chosen)
        rows = _with_first_subject(_with_agents_value(self.queryset(using)))
        return rows.filter(self._agents_chose() | models.Q(pk__in=decided_keys))

    def label_of(self, instance: models.Model) -> Priority | None:
        """Return what the value means, unless it differs from the agent's."""
        value = self.value_of(instance)
        is_agents = instance.__dict__.get(_AGENTS_VALUE, value) == value
        return self.meaning_of(value) if is_agents else None

    def unset_rows(self, using: str | None = None) -> models.QuerySet[Any]:
        """Return the rows nobody has decided, without defaults that an agent chose."""
        rows = _with_agents_value(self.queryset(using)).filter(self.unset_condition())
        return rows.filter(models.Q(**{f"{_AGENTS_VALUE}__isnull": True}) | ~self._agents_chose())

    def _agents_chose(self) -> models.Q:
        return models.Q(**{_AGENTS_VALUE: models.F(self.host_field.attname)})

    def check(self) -> Iterable[checks.CheckMessage]:
        """Return a warning in the host's cloud mode."""
        if reason := self.why_unavailable():
            yield checks.Warning(
                reason,
                hint='Take escalated.Ticket out of TICKET_PRIORITY["SOURCES"], or set '
                'ESCALATED["MODE"] to "self_hosted" or "synced".',
                obj=self.model,
                id="ticket_priority.W060",
            )

    def why_unavailable(self) -> str:
        """Return the reason in the host's cloud mode, else an empty string."""
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
    """Record the priority that an agent or admin set; rules and imports have no user."""
    if _OURS not in kwargs and _is_on_staff(user, ticket):
        record(ticket, PriorityChange(old_priority, new_priority, user=user, via="agent"))


def follow_host(*, sender: type[models.Model], ticket: models.Model, **kwargs: Any) -> None:
    """Move the deadlines of a new ticket that a worker classified before the host set them."""
    using = ticket._state.db or router.db_for_write(sender)
    try:
        if get_source(sender).effective_mode == "async":
            _move_first_deadlines(ticket, using)
    except Exception as error:
        if needs_rollback(using):
            raise
        logger.error(
            "The deadlines of a new ticket may be those of its default priority: %s",
            redacted_traceback(error),
        )


def _move_first_deadlines(ticket: models.Model, using: str) -> None:
    with transaction.atomic(using=using):
        latest = _activities().using(using).filter(ticket=ticket.pk).order_by("pk").last()
        if latest is None or not latest.properties.get("predicted"):
            return
        before, after = latest.properties["old_priority"], latest.properties["new_priority"]
        move_deadlines(ticket.pk, before, after, using)
        # The next save of this object must not restore the former deadlines.
        fields = ["priority", "first_response_due_at", "resolution_due_at"]
        ticket.refresh_from_db(using=using, fields=fields)


def _is_on_staff(user: Any, ticket: Any) -> bool:
    from escalated.permissions import is_admin, is_agent

    try:
        return user is not None and bool(
            is_admin(user) or is_agent(user) or ticket.assigned_to_id == user.pk
        )
    except Exception as error:
        logger.error(
            "It is not known whether an agent changed a ticket's priority: %s",
            redacted_traceback(error),
        )
        return False


def _activities(kind: str = "PRIORITY_CHANGED") -> Any:
    from escalated.models import TicketActivity

    # The default manager may hide rows from the user of the current request.
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


def send_host_signal(
    model: type[models.Model], pk: Any, change: PriorityChange, using: str
) -> None:
    """Send the host's own signal, for its webhooks, workflows and plugins. Never raises.

    Not sent for closed tickets. A synced host also reports the change to its cloud.
    """
    try:
        _send_change(model, pk, change, using)
    except Exception as error:
        logger.error(
            "The host was not notified of a change of a ticket's priority: %s",
            redacted_traceback(error),
        )


def _send_change(model: type[models.Model], pk: Any, change: PriorityChange, using: str) -> None:
    from escalated.conf import get_setting
    from escalated.drivers.api_client import HostedApiClient
    from escalated.signals import ticket_priority_changed

    # Read again, because a workflow may save every field.
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
    """Annotate tickets with the subject in the host's oldest "created" entry."""
    entries = _activities("CREATED").filter(ticket=models.OuterRef("pk")).order_by("pk")
    first = entries.annotate(**{_FIRST_SUBJECT: KeyTextTransform("subject", "properties")})
    annotated: models.QuerySet[Any] = rows.annotate(
        **{_FIRST_SUBJECT: models.Subquery(first.values(_FIRST_SUBJECT)[:1])}
    )
    return annotated
