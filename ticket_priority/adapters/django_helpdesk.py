"""django-helpdesk 2.6: its scale, history and staff, and which of its values are labels."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import checks
from django.db import connections, models, transaction
from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.signals import post_save
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _

from ticket_priority.adapters.django_helpdesk_host import (
    acting_route,
    host_module,
    is_opening,
    is_staff,
    languages,
    names_of,
    staff_rule,
)
from ticket_priority.conf import MODES
from ticket_priority.exceptions import SourceError
from ticket_priority.logs import redacted_traceback
from ticket_priority.middleware import acting_user
from ticket_priority.ml.text.normalisation import join_fields
from ticket_priority.priorities import Priority
from ticket_priority.sources import (
    DecisionRecorder,
    PriorityChange,
    TicketSource,
    UserRows,
    get_source,
    is_column,
)
from ticket_priority.sources.notes import Notes

logger = logging.getLogger(__name__)

_TO_HOST: Final[Mapping[str, Any]] = {"low": 4, "medium": 3, "high": 2}
_FROM_HOST: Final[Mapping[Any, str]] = {1: "high", 2: "high", 3: "medium", 4: "low", 5: "low"}
_PUBLIC_PRIORITY: Final = "HELPDESK_PUBLIC_TICKET_PRIORITY"

_FIRST_TITLE: Final = "ticket_priority_first_title"
_FIRST_DESCRIPTION: Final = "ticket_priority_first_description"
_OPENED_WITHIN: Final = timedelta(minutes=1)

_AUTOMATIC = _("Priority set automatically")
_CHANGED = _("Priority changed")


def accessible_to(rows: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    """Keep the tickets that the host lets a user open."""
    if not (user.is_authenticated and user.is_active):
        return rows.none()
    condition = host_module(rows.model, "user").HelpdeskUser(user).accessible_tickets_q()
    return rows.filter(condition) if condition else rows


def changeable_by_staff(rows: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    """Keep all tickets for the helpdesk's staff, none for customers."""
    return rows if is_staff(rows.model, user) else rows.none()


@dataclass(frozen=True, slots=True)
class _Attribution:
    """A change of priority that a follow-up describes, and its new value."""

    followup: weakref.ref[models.Model]
    user: Any
    value: str


_OPENING: Final = Notes[bool]()
_ATTRIBUTED: Final = Notes[_Attribution]()


@dataclass(frozen=True, slots=True)
class DjangoHelpdeskSource(TicketSource):
    """The attachment to `helpdesk.Ticket`.

    Each option of `TicketSource` has a default for this host. The values that the host fills in
    itself mean unset: the column's default and HELPDESK_PUBLIC_TICKET_PRIORITY.
    """

    text_fields: tuple[str, ...] = ("title", "description")
    to_host: Mapping[str, Any] = field(default_factory=lambda: dict(_TO_HOST))
    from_host: Mapping[Any, str] | None = field(default_factory=lambda: dict(_FROM_HOST))
    created_field: str | None = "created"
    visible_to: str | UserRows | None = accessible_to
    changeable_by: str | UserRows | None = changeable_by_staff
    record_changes: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for another host's model."""
        TicketSource.__post_init__(self)
        try:
            for name in ("FollowUp", "TicketChange"):
                self._related(name)
        except LookupError:
            raise ValueError(f"{self.label} is not a ticket of django-helpdesk") from None

    @property
    def unset_values(self) -> tuple[Any, ...]:
        """The column's default, and the value that the host sets on public tickets."""
        values = super(DjangoHelpdeskSource, self).unset_values
        public = getattr(settings, _PUBLIC_PRIORITY, None)
        if self.unset is not None or public is None or self.clean(public) in values:
            return values
        return (*values, self.clean(public))

    def text_at_creation(self, instance: models.Model) -> str:
        """Return the ticket's text with its first title and description.

        The host keeps the title when it is changed on the ticket's page, and the description in the
        first follow-up of a ticket that was opened with a form.
        """
        if _FIRST_TITLE not in instance.__dict__:
            rows = self._with_first_texts(self.queryset(instance._state.db))
            instance = rows.filter(pk=instance.pk).first() or instance
        values = instance.__dict__
        first = {"title": values.get(_FIRST_TITLE), "description": values.get(_FIRST_DESCRIPTION)}
        return join_fields(
            getattr(instance, name, None) if first.get(name) is None else first[name]
            for name in self.text_fields
        )

    def connect(self, record: DecisionRecorder) -> None:
        """Connect to new tickets, follow-ups and changes, before the host saves the ticket."""
        uid = f"ticket_priority.{self.model._meta.label_lower}"
        for name, receiver in (
            (self.model._meta.object_name, await_opening),
            ("FollowUp", follow_opening),
            ("TicketChange", attribute),
        ):
            post_save.connect(
                receiver, sender=self._related(str(name)), dispatch_uid=f"{uid}.{name}"
            )

    def decision_on(self, instance: models.Model, change: PriorityChange) -> PriorityChange | None:
        """Return the decision of the helpdesk's staff, known from a follow-up or the request.

        An update that did nothing else, and a PATCH, are deliberate. Other routes save every field,
        so the person may not have noticed the change.
        """
        attributed = _ATTRIBUTED.pop(instance)
        if attributed is not None and attributed.value == str(change.after):
            if not is_staff(self.model, attributed.user):
                return None
            followup = attributed.followup()
            incidental = followup is None or self._did_more(followup)
            return replace(change, user=attributed.user, via="update_form", incidental=incidental)
        user = acting_user()
        if user is None or not is_staff(self.model, user):
            return None
        via, is_patch = acting_route(self.model)
        return replace(change, user=user, via=via, incidental=not is_patch)

    def write_history(self, instance: models.Model, change: PriorityChange, *, using: str) -> None:
        """Write a private follow-up with the change of priority; the ticket is not saved."""
        if change.at_creation:
            _OPENING.put(instance, True)
        is_person = change.user is not None and change.user.is_authenticated
        with translation.override(settings.LANGUAGE_CODE), transaction.atomic(using=using):
            followup: Any = self._related("FollowUp")(
                ticket_id=instance.pk,
                date=timezone.now(),
                title=str(_AUTOMATIC if change.via in MODES else _CHANGED),
                comment=change.reason,
                public=False,
                user=change.user if is_person else None,
                email_recipients=[],
            )
            if self._counts_time:
                followup.time_spent = followup.time_spent_calculation()
            # Not the host's own `save()`, which also saves the ticket with outdated values.
            models.Model.save(followup, force_insert=True, using=using)
            self._related("TicketChange")._base_manager.using(using).create(
                followup=followup,
                field=str(self.host_field.verbose_name),
                old_value=str(change.before),
                new_value=str(change.after),
            )

    def put_first(self, followup: Any, using: str) -> None:
        """Date the plugin's follow-up about a new ticket after the host's opening one."""
        with translation.override(settings.LANGUAGE_CODE):
            title = str(_AUTOMATIC)
        ours = self._followups(using).filter(
            ticket=followup.ticket_id, public=False, user=None, title=title
        )
        with transaction.atomic(using=using):
            ours.filter(pk__lt=followup.pk, date__lte=followup.date).update(
                date=followup.date + timedelta(microseconds=1)
            )

    def labelled_rows(
        self, using: str | None = None, *, decided_keys: Any = ()
    ) -> models.QuerySet[Any]:
        """Return rows with `decided_keys`, and those whose priority the helpdesk's staff set.

        Staff set a priority if its last recorded change is theirs and still holds, or if it is not
        a default, they opened the ticket, and nobody has changed the priority since.
        """
        if self.labelled is not None:
            chosen = TicketSource.labelled_rows(self, using, decided_keys=decided_keys)
            return self._with_first_texts(chosen)
        rows = self._with_first_texts(self.queryset(using))
        staff = self._staff_keys(rows.db)
        changes = self._priority_changes(rows.db)
        later = changes.filter(followup__ticket=OuterRef("followup__ticket"), pk__gt=OuterRef("pk"))
        present, holds = f"followup__ticket__{self.priority_field}", Q(pk__in=[])
        for value in self.host_values:
            holds |= Q(("new_value", str(value)), (present, value))
        last_by_staff = changes.filter(holds, ~Exists(later), followup__user__in=staff)
        opened_by_staff = self._followups(rows.db).filter(
            ticket=OuterRef("pk"), comment=OuterRef("description"), user__in=staff
        )
        return rows.filter(
            Q(pk__in=decided_keys)
            | Q(pk__in=last_by_staff.values("followup__ticket"))
            | ~self.unset_condition() & ~self._has_change(rows.db) & Exists(opened_by_staff)
        )

    def unset_rows(self, using: str | None = None) -> models.QuerySet[Any]:
        """Return rows with a value that the host filled in and that never changed."""
        rows = TicketSource.unset_rows(self, using)
        return rows.filter(~self._has_change(rows.db))

    def label_of(self, instance: models.Model) -> Priority | None:
        """Return what the value means, a default included: `labelled_rows` were set by staff."""
        return self.meaning_of(self.value_of(instance))

    def check(self) -> Iterable[checks.CheckMessage]:
        """Return warnings about an unknown public priority and an old version of the host."""
        known = set(self.host_values)
        public = getattr(settings, _PUBLIC_PRIORITY, None)
        if public is not None and self.clean(public) not in known:
            yield checks.Warning(
                f"{_PUBLIC_PRIORITY} is {public!r}, which is not a priority of {self.label}.",
                hint=f"Choose one of {', '.join(sorted(map(str, known)))}.",
                obj=self.model,
                id="ticket_priority.W050",
            )
        if not hasattr(host_module(self.model, "user").HelpdeskUser, "accessible_tickets_q"):
            yield checks.Warning(
                "This django-helpdesk is older than 2.6, for which its adapter is made.",
                hint='pip install "django-helpdesk>=2.6"',
                obj=self.model,
                id="ticket_priority.W051",
            )

    @property
    def _counts_time(self) -> bool:
        """Whether the host itself writes the time spent to each follow-up."""
        return bool(host_module(self.model, "settings").FOLLOWUP_TIME_SPENT_AUTO)

    def _related(self, name: str) -> type[models.Model]:
        options = self.model._meta
        return options.apps.get_model(options.app_label, name)

    def _followups(self, using: str) -> models.QuerySet[Any]:
        return self._related("FollowUp")._base_manager.using(using)

    def _changes_of(self, column: models.Field[Any, Any], using: str) -> models.QuerySet[Any]:
        rows = self._related("TicketChange")._base_manager.using(using)
        return rows.filter(field__in=names_of(column, languages()))

    def _priority_changes(self, using: str) -> models.QuerySet[Any]:
        # A custom field may have the same name.
        values = [str(value) for value in self.host_values]
        return self._changes_of(self.host_field, using).filter(new_value__in=values)

    def _with_first_texts(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """Annotate tickets with the first title and description in the host's history."""
        title: Any = self.model._meta.get_field("title")
        changes = self._changes_of(title, rows.db).filter(followup__ticket=OuterRef("pk"))
        opened = self._followups(rows.db).filter(
            is_opening(languages()),
            ticket=OuterRef("pk"),
            date__gte=OuterRef("created") - _OPENED_WITHIN,
            date__lte=OuterRef("created") + _OPENED_WITHIN,
        )
        annotated: models.QuerySet[Any] = rows.annotate(
            **{
                _FIRST_TITLE: Subquery(changes.order_by("pk").values("old_value")[:1]),
                _FIRST_DESCRIPTION: Subquery(opened.order_by("pk").values("comment")[:1]),
            }
        )
        return annotated

    def _has_change(self, using: str) -> Exists:
        return Exists(self._priority_changes(using).filter(followup__ticket=OuterRef("pk")))

    def _staff_keys(self, using: str) -> Any:
        """Return the staff's keys, for `__in`, including inactive accounts of staff."""
        model = get_user_model()
        users = model._base_manager.using(using)
        if not callable(staff_rule(self.model)) and is_column(model, "is_staff"):
            return users.filter(is_staff=True).values("pk")
        writers = users.filter(pk__in=self._followups(using).values("user"))
        return [user.pk for user in writers.iterator() if is_staff(self.model, user)]

    def _did_more(self, followup: models.Model) -> bool:
        """Say whether the update behind this follow-up may have had another purpose."""
        update: Any = followup
        return bool(
            update.comment
            or update.new_status is not None
            or (update.time_spent and not self._counts_time)
            or update.ticketchange_set.count() > 1
            or update.followupattachment_set.exists()
            # Checked boxes are stored only after the ticket is saved.
            or update.ticket.checklists.exists()
        )


def _for_new_rows(receiver: Callable[[Any, str], None]) -> Callable[..., None]:
    """Make a receiver of post_save that gets new rows and their database, and never raises."""

    # Without `wraps`: Django would look for **kwargs in the signature of what is wrapped.
    def receive(sender: Any, instance: Any, created: bool, raw: bool, using: str, **_: Any) -> None:
        if raw or not created:
            return
        try:
            receiver(instance, using)
        except Exception as error:
            logger.error(
                "%s failed for %s: %s", receiver.__name__, sender, redacted_traceback(error)
            )

    return receive


@_for_new_rows
def await_opening(ticket: models.Model, using: str) -> None:
    """Mark a new ticket that a worker may write a follow-up for before the host does."""
    source = _source_of(type(ticket))
    # Inside a transaction no worker sees it yet.
    if source is None or connections[using].in_atomic_block:
        return
    if source.effective_mode == "async" and source.is_unset(source.value_of(ticket)):
        _OPENING.put(ticket, True)


@_for_new_rows
def follow_opening(followup: models.Model, using: str) -> None:
    """Put the host's first follow-up before one that the plugin may have written already."""
    ticket = _cached(followup, "ticket")
    if ticket is None or not _OPENING.pop(ticket):
        return
    if (source := _source_of(type(ticket))) is not None:
        source.put_first(followup, using)


@_for_new_rows
def attribute(change: Any, using: str) -> None:
    """Remember who changes the priority: the host stores that before it saves the ticket."""
    followup = _cached(change, "followup")
    ticket = None if followup is None else _cached(followup, "ticket")
    source = None if ticket is None else _source_of(type(ticket))
    if ticket is None or source is None or change.field != str(source.host_field.verbose_name):
        return
    user = getattr(followup, "user", None)
    if user is not None and source.meaning_of(source.clean(change.new_value)) is not None:
        _ATTRIBUTED.put(ticket, _Attribution(weakref.ref(followup), user, str(change.new_value)))


def _source_of(model: type[models.Model]) -> DjangoHelpdeskSource | None:
    try:
        source = get_source(model)
    except SourceError:
        return None
    return source if isinstance(source, DjangoHelpdeskSource) else None


def _cached(instance: models.Model, name: str) -> Any:
    """Return a related object without a query; None where it is not loaded."""
    relation: Any = instance._meta.get_field(name)
    return relation.get_cached_value(instance, default=None)
