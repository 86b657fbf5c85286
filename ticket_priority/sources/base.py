"""Ticket sources: where text and labels live on a host's model, and what its values mean."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from django.contrib.auth import get_permission_codename
from django.core.checks import CheckMessage
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import connections, models
from django.db.models.expressions import DatabaseDefault
from django.db.models.fields import NOT_PROVIDED
from django.utils.module_loading import import_string

from ticket_priority.conf import MODES, get_settings
from ticket_priority.exceptions import SourceError
from ticket_priority.middleware import acting_user
from ticket_priority.ml.text.normalisation import join_fields
from ticket_priority.priorities import Priority

LabelledRows = Callable[["models.QuerySet[Any]"], "models.QuerySet[Any]"]
UserRows = Callable[["models.QuerySet[Any]", Any], "models.QuerySet[Any]"]

_IDENTITY: Mapping[str, Any] = {priority.slug: priority.value for priority in Priority}


@dataclass(frozen=True, slots=True)
class PriorityChange:
    """A change of a ticket's host value, `before` and `after` in the column's own type.

    `user` is the person who decided, None for a prediction or where nobody knows. A change is
    `incidental` when it may have come along unseen with something else, as from a form that posts
    every field, and `at_creation` when the ticket's own INSERT wrote it.
    """

    before: Any
    after: Any
    user: Any = None
    reason: str = ""
    via: str = ""
    incidental: bool = False
    at_creation: bool = False


class DecisionRecorder(Protocol):
    """Keeps a person's decision that the host has already written, as an Override."""

    def __call__(self, instance: models.Model, change: PriorityChange) -> None: ...


@dataclass(frozen=True, slots=True)
class TicketSource:
    """The attachment to one host model. Build it with `register()`.

    `to_host` maps each class name to the host's own value; `from_host` maps the host's values
    back to class names (None: the inverse of `to_host`). `unset` lists the host values that mean
    "nobody has decided": by default None, the empty string and the field's own default.
    `labelled` takes a queryset and returns the rows whose priority a person set, `reviewed` those
    that a person has worked on: a prediction that was left as it was there is a label too.
    With `record_changes` a save that changes the priority is a decision too: see `decision_on`.

    `visible_to` and `changeable_by` take a queryset and a user and return the tickets that the
    user may see, and whose priority the user may change; neither may slice. Without them the
    model's view and change permissions decide. Superusers may do both with every ticket. Only
    what is changeable and also visible can be changed.
    """

    model: type[models.Model]
    text_fields: tuple[str, ...] = ()
    priority_field: str = "priority"
    to_host: Mapping[str, Any] = field(default_factory=lambda: dict(_IDENTITY))
    from_host: Mapping[Any, str] | None = None
    unset: tuple[Any, ...] | None = None
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
        # A tuple is meant; a lone string would be read letter by letter.
        if isinstance(self.text_fields, str):
            object.__setattr__(self, "text_fields", (self.text_fields,))
        object.__setattr__(self, "text_fields", tuple(self.text_fields))

    @property
    def label(self) -> str:
        """The host model as `app_label.ModelName`."""
        return self.model._meta.label

    @property
    def effective_mode(self) -> str:
        mode = self.mode or get_settings().mode
        return mode if mode in MODES else "suggest"

    @property
    def host_field(self) -> models.Field[Any, Any]:
        """The host's priority field; raises FieldDoesNotExist."""
        found = self.model._meta.get_field(self.priority_field)
        if not isinstance(found, models.Field):
            raise FieldDoesNotExist(f"{self.label}.{self.priority_field} is not a column.")
        return found

    @property
    def default_value(self) -> Any:
        """What the column holds where nobody gave a value; None where that is not known."""
        column = self.host_field
        default = column.get_default() if column.has_default() else column.db_default
        if isinstance(default, models.Value):
            default = default.value
        return None if default is NOT_PROVIDED else default

    @property
    def unset_values(self) -> tuple[Any, ...]:
        if self.unset is not None:
            return tuple(self.unset)
        default = self.default_value
        return (None, "") if default in (None, "") else (None, "", default)

    def text_of(self, instance: models.Model) -> str:
        """Return the ticket's normalised text; empty when every text field is."""
        return join_fields(getattr(instance, name, None) for name in self.text_fields)

    def text_at_creation(self, instance: models.Model) -> str:
        """Return the normalised text that the ticket was created with, as far as the host knows.

        It is what the model is asked about, so it is what training learns from. Here: today's.
        """
        return self.text_of(instance)

    def language_of(self, instance: models.Model) -> str:
        """Return what the ticket's `language_field` holds; empty where nothing does."""
        return _described(instance, self.language_field)

    def segment_of(self, instance: models.Model) -> str:
        """Return what the ticket's `segment_field` holds; empty where nothing does."""
        return _described(instance, self.segment_field)

    def value_of(self, instance: models.Model) -> Any:
        """Return the host's priority value in the column's own type (a form's "3" becomes 3)."""
        return self.clean(getattr(instance, self.host_field.attname))

    def clean(self, value: Any) -> Any:
        """Convert a raw value to the column's type; what cannot be converted stays as it is."""
        column = self.host_field
        if isinstance(column, models.ForeignKey):
            column = column.target_field
        try:
            return column.to_python(value)
        except (ValidationError, TypeError):
            return value

    def _is_storable(self, value: Any) -> bool:
        try:
            self.host_field.to_python(value)
        except ValidationError:
            return False
        return value != "" or isinstance(self.host_field, models.CharField | models.TextField)

    def is_unset(self, value: Any) -> bool:
        return isinstance(value, DatabaseDefault) or value in self.unset_values

    def to_priority(self, value: Any) -> Priority | None:
        """Translate a host value; None when it is unset or maps to no class."""
        return None if self.is_unset(value) else self.meaning_of(value)

    def meaning_of(self, value: Any) -> Priority | None:
        """Translate a host value that a person chose, even one that means unset elsewhere."""
        slug = self._host_values().get(value)
        return None if slug is None else Priority.from_slug(slug)

    def _host_values(self) -> Mapping[Any, str]:
        if self.from_host is not None:
            return self.from_host
        return {host: slug for slug, host in self.to_host.items()}

    def to_host_value(self, priority: int) -> Any:
        """Translate a class id; raises SourceError when `to_host` leaves the class out."""
        slug = Priority(priority).slug
        try:
            return self.to_host[slug]
        except KeyError:
            raise SourceError(
                f'The source {self.label} has no host value for "{slug}": add it to "to_host".'
            ) from None

    def is_among(self, update_fields: Collection[str] | None) -> bool:
        """Say whether a save of these fields (None: of all) writes the priority."""
        if update_fields is None:
            return True
        return not {self.host_field.name, self.host_field.attname}.isdisjoint(update_fields)

    def set_on(self, instance: models.Model, priority: int) -> None:
        """Set the priority in memory, without saving."""
        setattr(instance, self.host_field.attname, self.to_host_value(priority))

    def write(self, instance: models.Model, priority: int, *, using: str | None) -> None:
        """Write the priority to the row, and the `auto_now` columns, and nothing else."""
        values: dict[str, Any] = {self.host_field.attname: self.to_host_value(priority)}
        for column in self.model._meta.concrete_fields:
            if getattr(column, "auto_now", False):
                values[column.attname] = column.pre_save(instance, add=False)
        self.queryset(using).filter(pk=instance.pk).update(**values)

    def reset(self, instance: models.Model, value: Any, *, using: str) -> None:
        """Put a host value back, in the row and in memory."""
        self.queryset(using).filter(pk=instance.pk).update(**{self.host_field.attname: value})
        setattr(instance, self.host_field.attname, value)

    def compare_and_set(self, pk: Any, *, before: Any, priority: int, using: str | None) -> bool:
        """Write the priority unless the column has changed from `before`; True if written."""
        column = self.host_field.attname
        rows = self.queryset(using).filter(pk=pk)
        rows = rows.filter(**{f"{column}__isnull": True} if before is None else {column: before})
        return rows.update(**{column: self.to_host_value(priority)}) == 1

    def queryset(self, using: str | None = None) -> models.QuerySet[Any]:
        """Every row of the host model, past any default manager that hides some."""
        return self.model._base_manager.using(using)

    def by_keys(self, keys: Iterable[str], *, using: str | None = None) -> dict[str, models.Model]:
        """Return the tickets that are there by `str(pk)`, in one query."""
        column = self.model._meta.pk
        rows = self.queryset(using).in_bulk([column.to_python(key) for key in keys])
        return {str(pk): ticket for pk, ticket in rows.items()}

    def lock(self, pk: Any, *, using: str) -> Any:
        """Lock the row until the transaction ends, where the database can, and return it.

        Raises the model's DoesNotExist.
        """
        rows = self.queryset(using)
        if connections[using].features.has_select_for_update:
            rows = rows.select_for_update()
        return rows.get(pk=pk)

    def labelled_rows(
        self, using: str | None = None, *, decided_keys: Any = ()
    ) -> models.QuerySet[Any]:
        """Rows whose value may be a label: `labelled` if given, else all that are not unset.

        The rows with `decided_keys`, which people have overruled, are among them in any case, and
        so are those that people reviewed.
        """
        rows = self.queryset(using)
        decided = models.Q(pk__in=decided_keys)
        if self.reviewed is not None:
            decided |= models.Q(pk__in=_loaded(self.reviewed)(rows).order_by().values("pk"))
        if self.labelled is not None:
            chosen = _loaded(self.labelled)(rows).order_by().values("pk")
            return rows.filter(models.Q(pk__in=chosen) | decided)
        return rows.filter(~self.unset_condition() | decided)

    def reviewed_keys(self, keys: Collection[Any], using: str | None = None) -> set[str]:
        """Return which of these tickets people have worked on, by `str(pk)`."""
        if self.reviewed is None:
            return set()
        rows: models.QuerySet[Any] = _loaded(self.reviewed)(self.queryset(using))
        chosen = self.queryset(using).filter(pk__in=rows.order_by().values("pk"))
        return {str(key) for key in chosen.filter(pk__in=keys).values_list("pk", flat=True)}

    def sees_all(self, user: Any) -> bool:
        """Say whether every ticket is visible to the user."""
        if self.visible_to is None:
            return _has_permission(self.model, user, "view", "change")
        return _is_superuser(user)

    def visible_rows(self, user: Any, using: str | None = None) -> models.QuerySet[Any]:
        """The tickets the user may see."""
        rows = self.queryset(using)
        if self.sees_all(user):
            return rows
        return rows.none() if self.visible_to is None else self._chosen(rows, self.visible_to, user)

    def changeable_rows(self, user: Any, using: str | None = None) -> models.QuerySet[Any]:
        """The tickets whose priority the user may decide, of those that the user may see."""
        rows = self.visible_rows(user, using)
        if _is_superuser(user):
            return rows
        if self.changeable_by is not None:
            return self._chosen(rows, self.changeable_by, user)
        return rows if _has_permission(self.model, user, "change") else rows.none()

    def _chosen(
        self, rows: models.QuerySet[Any], choose: str | UserRows, user: Any
    ) -> models.QuerySet[Any]:
        chosen: models.QuerySet[Any] = _loaded(choose)(rows, user)
        if chosen is rows:
            return rows
        # A subquery: what is chosen may be joined, distinct or a union.
        return self.queryset(rows.db).filter(pk__in=chosen.order_by().values("pk"))

    def unset_rows(self, using: str | None = None) -> models.QuerySet[Any]:
        """Rows nobody has decided."""
        return self.queryset(using).filter(self.unset_condition())

    def unset_condition(self) -> models.Q:
        column = self.host_field.attname
        condition = models.Q()
        for value in self.unset_values:
            if value is None:
                condition |= models.Q(**{f"{column}__isnull": True})
            elif self._is_storable(value):
                condition |= models.Q(**{column: value})
        return condition

    def condition_of(self, priority: int) -> models.Q:
        """Match the rows that bear a host value of this class."""
        values = [value for value in self._host_values() if self.to_priority(value) == priority]
        return models.Q(**{f"{self.host_field.attname}__in": values})

    def values_in_doubt(self, *priorities: int) -> list[Any]:
        """Return the values of these classes that mean unset, until somebody decides for them."""
        unset = [value for value in self._host_values() if self.is_unset(value)]
        return [value for value in unset if self.meaning_of(value) in priorities]

    # What an adapter may say of its host.

    def connect(self, record: DecisionRecorder) -> None:
        """Listen to the host's own signals, with a `dispatch_uid`: it may be called again."""

    def wants(self, instance: models.Model) -> bool:
        """Say whether a ticket that is being saved is the plugin's business."""
        return True

    def decision_on(self, instance: models.Model, change: PriorityChange) -> PriorityChange | None:
        """Return the decision behind a save that changed the priority; None: nobody's.

        Asked only with `record_changes`. Here: whoever's request is being answered decided.
        """
        user = acting_user()
        return None if user is None else replace(change, user=user, via="host")

    def write_history(self, instance: models.Model, change: PriorityChange, *, using: str) -> None:
        """Tell the host's own history of a change that the plugin brought about.

        That is a prediction, also one that the host's INSERT wrote, or a decision that was made in
        the plugin's admin, API or `override()`. Called in the transaction of the change, inside a
        savepoint; what it raises is logged.
        """

    def label_of(self, instance: models.Model) -> Priority | None:
        """Return the label that one of the `labelled_rows` bears; a default too, if `labelled`."""
        value = self.value_of(instance)
        return self.to_priority(value) if self.labelled is None else self.meaning_of(value)

    def check(self) -> Iterable[CheckMessage]:
        """Return what a system check should say of the host's set-up."""
        return ()

    def why_unavailable(self) -> str:
        """Say why there are no tickets here to classify or to learn from; empty: there may be."""
        return ""


def is_column(model: type[models.Model], name: str) -> bool:
    """Say whether a model has a column of this name."""
    try:
        return bool(getattr(model._meta.get_field(name), "concrete", False))
    except FieldDoesNotExist:
        return False


def _described(instance: models.Model, name: str | None) -> str:
    value = getattr(instance, name) if name else None
    return "" if value is None else str(value)


def _loaded(path: str | Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(path, str):
        return path
    loaded: Callable[..., Any] = import_string(path)
    return loaded


def _is_superuser(user: Any) -> bool:
    return bool(user.is_active and getattr(user, "is_superuser", False))


def _has_permission(model: type[models.Model], user: Any, *actions: str) -> bool:
    """Say whether the user holds one of the model's permissions."""
    options = model._meta
    codenames = (get_permission_codename(action, options) for action in actions)
    return any(user.has_perm(f"{options.app_label}.{codename}") for codename in codenames)
