"""`TicketSource`: which tickets a host model has, who may see them, and how adapters hook in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

from django.contrib.auth import get_permission_codename
from django.core.checks import CheckMessage
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, models
from django.utils.module_loading import import_string

from ticket_priority.conf import MODES, get_settings
from ticket_priority.middleware import acting_user
from ticket_priority.ml.text.normalisation import join_fields
from ticket_priority.priorities import Priority
from ticket_priority.sources.changes import DecisionRecorder, PriorityChange
from ticket_priority.sources.column import PriorityColumn
from ticket_priority.sources.keys import key_text, read_keys

LabelledRows = Callable[["models.QuerySet[Any]"], "models.QuerySet[Any]"]
UserRows = Callable[["models.QuerySet[Any]", Any], "models.QuerySet[Any]"]


@dataclass(frozen=True, slots=True)
class TicketSource(PriorityColumn):
    """The attachment to one host model. Build it with `register()`.

    For `to_host`, `from_host` and `unset` see PriorityColumn. `labelled` takes a queryset and
    returns the rows whose priority a person set, `reviewed` those that a person has worked on: a
    prediction left unchanged there is a label too. With `record_changes` a save that changes the
    priority is a decision, see `decision_on`.

    `visible_to` and `changeable_by` take a queryset and a user and return the tickets that the
    user may see, and whose priority the user may change; neither may slice. Without them the
    model's view and change permissions decide. Superusers may see and change every ticket. Only
    a visible ticket can be changed.
    """

    text_fields: tuple[str, ...] = ()
    created_field: str | None = None
    language_field: str | None = None
    segment_field: str | None = None
    labelled: str | LabelledRows | None = None
    reviewed: str | LabelledRows | None = None
    mode: str | None = None
    visible_to: str | UserRows | None = None
    changeable_by: str | UserRows | None = None
    record_changes: bool = False

    def __post_init__(self) -> None:
        """Accept a single text field as a string."""
        given = self.text_fields
        names = (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "text_fields", names)

    @property
    def effective_mode(self) -> str:
        """The mode of the source, else of the settings; "suggest" where that is invalid."""
        mode = self.mode or get_settings().mode
        return mode if mode in MODES else "suggest"

    def text_of(self, instance: models.Model) -> str:
        """Return the ticket's normalised text; empty when every text field is."""
        return join_fields(_value_in(instance, name) for name in self.text_fields)

    def text_at_creation(self, instance: models.Model) -> str:
        """Return the normalised text that the ticket was created with, if the host keeps it.

        Training uses it, since the model classifies tickets at creation. Here: the present text.
        """
        return self.text_of(instance)

    def language_of(self, instance: models.Model) -> str:
        """Return the value of the ticket's `language_field`; empty where there is none."""
        return _text_in(instance, self.language_field)

    def segment_of(self, instance: models.Model) -> str:
        """Return the value of the ticket's `segment_field`; empty where there is none."""
        return _text_in(instance, self.segment_field)

    def by_keys(self, keys: Iterable[str], *, using: str | None = None) -> dict[str, models.Model]:
        """Return the tickets that exist, each by the text that it was asked for with."""
        texts = {key: key_text(self.model, key) for key in keys}
        found = self.queryset(using).in_bulk(read_keys(self.model, texts.values(), using))
        tickets = {key_text(self.model, pk): ticket for pk, ticket in found.items()}
        return {key: tickets[text] for key, text in texts.items() if text in tickets}

    def lock(self, pk: Any, *, using: str) -> Any:
        """Lock the row until the transaction ends, where the database can, and return it.

        Raises the model's DoesNotExist.
        """
        rows = self.queryset(using)
        if connections[using].features.has_select_for_update:
            # PostgreSQL locks no row of an outer join, which a base manager may add.
            rows = rows.select_related(None).select_for_update()
        return rows.get(pk=pk)

    def labelled_rows(
        self, using: str | None = None, *, decided_keys: Any = ()
    ) -> models.QuerySet[Any]:
        """Return rows whose value may be a label: `labelled` if given, else all that are not unset.

        Always included are the rows with `decided_keys`, about which people decided, and those that
        people reviewed.
        """
        rows = self.queryset(using)
        decided = models.Q(pk__in=decided_keys)
        if self.reviewed is not None:
            decided |= models.Q(pk__in=_keys_chosen(self.reviewed, rows))
        if self.labelled is not None:
            return rows.filter(models.Q(pk__in=_keys_chosen(self.labelled, rows)) | decided)
        return rows.filter(~self.unset_condition() | decided)

    def reviewed_keys(self, keys: Collection[Any], using: str | None = None) -> set[str]:
        """Return which of these tickets people have worked on, by `key_text`."""
        if self.reviewed is None:
            return set()
        rows = self.queryset(using)
        chosen = rows.filter(pk__in=_keys_chosen(self.reviewed, rows))
        found = chosen.filter(pk__in=keys).values_list("pk", flat=True)
        return {key_text(self.model, key) for key in found}

    def unset_rows(self, using: str | None = None) -> models.QuerySet[Any]:
        """Return the rows that nobody has decided."""
        return self.queryset(using).filter(self.unset_condition())

    def sees_all(self, user: Any) -> bool:
        """Say whether every ticket is visible to the user."""
        if self.visible_to is None:
            return _has_permission(self.model, user, "view", "change")
        return _is_superuser(user)

    def visible_rows(self, user: Any, using: str | None = None) -> models.QuerySet[Any]:
        """Return the tickets that the user may see."""
        rows = self.queryset(using)
        if self.sees_all(user):
            return rows
        return (
            rows.none() if self.visible_to is None else self._allowed(rows, self.visible_to, user)
        )

    def changeable_rows(self, user: Any, using: str | None = None) -> models.QuerySet[Any]:
        """Return the visible tickets whose priority the user may change."""
        rows = self.visible_rows(user, using)
        if _is_superuser(user):
            return rows
        if self.changeable_by is not None:
            return self._allowed(rows, self.changeable_by, user)
        return rows if _has_permission(self.model, user, "change") else rows.none()

    def _allowed(
        self, rows: models.QuerySet[Any], choose: str | UserRows, user: Any
    ) -> models.QuerySet[Any]:
        allowed: models.QuerySet[Any] = _loaded(choose)(rows, user)
        if allowed is rows:
            return rows
        # A subquery, because the function's queryset may be joined, distinct or a union.
        return self.queryset(rows.db).filter(pk__in=allowed.order_by().values("pk"))

    # Hooks for adapters.

    def connect(self, record: DecisionRecorder) -> None:
        """Connect to the host's own signals, with a `dispatch_uid`: it may be called again."""

    def wants(self, instance: models.Model) -> bool:
        """Say whether the plugin should handle a ticket that is being saved."""
        return True

    def decision_on(self, instance: models.Model, change: PriorityChange) -> PriorityChange | None:
        """Return the decision behind a save that changed the priority; None: no person's.

        Called only with `record_changes`. Here: the user of the current request decided.
        """
        user = acting_user()
        return None if user is None else replace(change, user=user, via="host")

    def write_history(self, instance: models.Model, change: PriorityChange, *, using: str) -> None:
        """Write a change that the plugin made to the host's own history.

        That is a prediction, also one that the ticket's INSERT wrote, or a decision made in the
        plugin's admin, API or `override()`. Called in the change's transaction, inside a
        savepoint; errors are logged.
        """

    def label_of(self, instance: models.Model) -> Priority | None:
        """Return the label of one of `labelled_rows`; a default counts where `labelled` is set."""
        value = self.value_of(instance)
        return self.to_priority(value) if self.labelled is None else self.meaning_of(value)

    def check(self) -> Iterable[CheckMessage]:
        """Return the system check messages about the host's set-up."""
        return ()

    def why_unavailable(self) -> str:
        """Return why this host has no tickets to classify or to train on; empty if it may have."""
        return ""


def is_column(model: type[models.Model], name: str) -> bool:
    """Say whether a model has a column of this name."""
    try:
        return bool(getattr(model._meta.get_field(name), "concrete", False))
    except FieldDoesNotExist:
        return False


def _text_in(instance: models.Model, name: str | None) -> str:
    value = _value_in(instance, name) if name else None
    return "" if value is None else str(value)


def _value_in(instance: models.Model, name: str) -> Any:
    """Return what an attribute of a ticket holds; a method is called without arguments."""
    value = getattr(instance, name, None)
    return value() if isinstance(value, MethodType) else value


def _loaded(path: str | Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(path, str):
        return path
    loaded: Callable[..., Any] = import_string(path)
    return loaded


def _keys_chosen(choose: str | LabelledRows, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
    chosen: models.QuerySet[Any] = _loaded(choose)(rows)
    return chosen.order_by().values("pk")


def _is_superuser(user: Any) -> bool:
    return bool(user.is_active and getattr(user, "is_superuser", False))


def _has_permission(model: type[models.Model], user: Any, *actions: str) -> bool:
    """Say whether the user has one of the model's permissions."""
    options = model._meta
    codenames = (get_permission_codename(action, options) for action in actions)
    return any(user.has_perm(f"{options.app_label}.{codename}") for codename in codenames)
