"""System checks of the ticket sources, and registration of those in the settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connections, models, router
from django.utils.module_loading import import_string

from ticket_priority import conf
from ticket_priority.exceptions import SourceError
from ticket_priority.fields import PriorityField
from ticket_priority.ml.types import CLASS_NAMES
from ticket_priority.priorities import Priority
from ticket_priority.sources.base import TicketSource, is_column
from ticket_priority.sources.column import IDENTITY, defaults_called_once
from ticket_priority.sources.refusals import refused_in_every_row, row_exists, why_unfit
from ticket_priority.sources.registry import all_sources, left_out, register

MIDDLEWARE: Final = "ticket_priority.middleware.acting_user_middleware"

_broken_sources: dict[str, str] = {}


def register_configured_sources() -> None:
    """Register `TICKET_PRIORITY["SOURCES"]`; what fails is kept for `check_sources`."""
    _broken_sources.clear()
    configured = conf.get_settings().sources
    for label, options in configured.items() if isinstance(configured, Mapping) else ():
        try:
            if not isinstance(options, Mapping):
                raise SourceError("Give a dictionary of options.")
            register(label, **{name: value for name, value in options.items() if name != "model"})
        except (SourceError, TypeError, AttributeError) as error:
            _broken_sources[str(label)] = str(error)


def check_sources(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Find what is wrong with each ticket source."""
    for label, message in _broken_sources.items():
        yield checks.Error(
            f"{conf.SETTING}['SOURCES'][{label!r}] cannot be used: {message}",
            id="ticket_priority.E010",
        )
    if not all_sources() and not _broken_sources:
        yield checks.Warning(
            "No model has automatic priority.",
            hint=f"Give a model a PriorityField, or name it in {conf.SETTING}['SOURCES'].",
            id="ticket_priority.W011",
        )
    for source, other in left_out():
        yield checks.Error(
            f"The ticket source {source.label} is left out: {other.label} has the same table, and "
            "with it the same tickets.",
            hint="Register one of the two. The source of a model is that of its proxies too.",
            obj=source.model,
            id="ticket_priority.E028",
        )
    for source in all_sources():
        yield from _check_source(source)


def check_host_rows(databases: Any = None, **kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Find classes that a host refuses in every row, with `check --database` and in `migrate`."""
    for source in all_sources():
        using = router.db_for_write(source.model)
        if using not in (databases or ()) or not is_column(source.model, source.priority_field):
            continue
        # A table may not exist yet. Other checks report a wrong scale.
        with suppress(DatabaseError, SourceError):
            yield from _check_rows(source, using)


def _check_rows(source: TicketSource, using: str) -> Iterator[checks.CheckMessage]:
    column = source.host_field
    known = [Priority.from_slug(name) for name in CLASS_NAMES if name in source.to_host]
    values = {priority.slug: source.to_host_value(priority) for priority in known}
    fit = {slug: value for slug, value in values.items() if not why_unfit(column, value)}
    if isinstance(column, models.ForeignKey):
        lost = [slug for slug, value in fit.items() if not row_exists(column, value, using=using)]
        if lost:
            yield checks.Warning(
                f"{source.label}.{column.name}: {column.remote_field.model._meta.label} has no row "
                f"with the key {_listed(fit[slug] for slug in lost)} ({', '.join(lost)}), so such "
                "predictions are only suggested.",
                hint='Create the rows, or correct "to_host".',
                obj=source.model,
                id="ticket_priority.W026",
            )
    for name, slugs in refused_in_every_row(source, fit, using=using).items():
        yield checks.Warning(
            f"The constraint {name} of {source.label} takes no ticket with the priority "
            f"{', '.join(slugs)}, so such predictions are only suggested.",
            hint='Correct "to_host", or the constraint.',
            obj=source.model,
            id="ticket_priority.W027",
        )


def _check_source(source: TicketSource) -> Iterator[checks.CheckMessage]:
    if missing := list(_check_fields(source)):
        yield from missing
        return
    yield from _check_options(source)
    yield from _check_other_fields(source)
    if wrong := list(_check_mapping(source)):
        yield from wrong
    else:
        with defaults_called_once(), _without_queries(), suppress(DatabaseError):
            yield from [*_check_choices(source), *_check_default(source)]
    yield from _check_host(source)


def _check_fields(source: TicketSource) -> Iterator[checks.CheckMessage]:
    read = [*source.text_fields]
    read += filter(None, (source.created_field, source.language_field, source.segment_field))
    missing = [name for name in read if not _is_readable(source.model, name)]
    if not is_column(source.model, source.priority_field):
        missing.insert(0, source.priority_field)
    if missing:
        known = [column.name for column in source.model._meta.concrete_fields]
        close = {name: get_close_matches(name, known, n=1) for name in missing}
        meant = [f"{found[0]} for {name}" for name, found in close.items() if found]
        guess = f"Did you mean {', '.join(meant)}? " if meant else ""
        yield checks.Error(
            f"The ticket source {source.label} has no {', '.join(missing)}.",
            hint=f"{guess}Its columns: {', '.join(known)}. The priority_field must be one.",
            obj=source.model,
            id="ticket_priority.E012",
        )


def _check_other_fields(source: TicketSource) -> Iterator[checks.CheckMessage]:
    """Check that the model has no other PriorityField that wants to be predicted too."""
    others = [
        column.name
        for column in source.model._meta.fields
        if isinstance(column, PriorityField)
        and column.source_options.get("text_fields")
        and column.name != source.priority_field
    ]
    if others:
        yield checks.Error(
            f"{source.label} has more than one priority to predict: {', '.join(others)} stays "
            f"unset, as {source.priority_field} is the source's.",
            hint=f"Leave text_fields out of {', '.join(others)}.",
            obj=source.model,
            id="ticket_priority.E036",
        )


@contextmanager
def _without_queries() -> Iterator[None]:
    """Have every query fail: a column's default may query, or even write."""

    def refuse(*args: Any) -> Any:
        raise DatabaseError("A system check may not query here.")

    with ExitStack() as wrapped:
        for alias in connections:
            wrapped.enter_context(connections[alias].execute_wrapper(refuse))
        yield


def _is_readable(model: type[models.Model], name: str) -> bool:
    return is_column(model, name) or hasattr(model, name)


def _check_options(source: TicketSource) -> Iterator[checks.CheckMessage]:
    if not source.text_fields:
        yield checks.Error(
            f"The ticket source {source.label} names no text_fields.",
            obj=source.model,
            id="ticket_priority.E013",
        )
    if source.mode is not None and source.mode not in conf.MODES:
        yield checks.Error(
            f"The ticket source {source.label} has an unknown mode {source.mode!r}.",
            hint=f"Choose one of {', '.join(conf.MODES)}.",
            obj=source.model,
            id="ticket_priority.E015",
        )
    for name in ("labelled", "reviewed", "visible_to", "changeable_by"):
        value = getattr(source, name)
        if isinstance(value, str) and not is_importable(value):
            yield checks.Error(
                f"The ticket source {source.label} has a {name} that cannot be imported: {value}.",
                hint="Give a callable or its dotted path.",
                obj=source.model,
                id="ticket_priority.E016",
            )
    if source.record_changes and MIDDLEWARE not in settings.MIDDLEWARE:
        yield checks.Warning(
            f"The ticket source {source.label} has record_changes, but changes on the host's own "
            "pages cannot be attributed to anybody.",
            hint=f'Add "{MIDDLEWARE}" to MIDDLEWARE.',
            obj=source.model,
            id="ticket_priority.W017",
        )


def _check_mapping(source: TicketSource) -> Iterator[checks.CheckMessage]:
    gaps = [name for name in CLASS_NAMES if name not in source.to_host]
    if gaps:
        yield checks.Error(
            f"The ticket source {source.label} maps no host value for {', '.join(gaps)}.",
            hint='Complete "to_host".',
            obj=source.model,
            id="ticket_priority.E014",
        )
    read = source.from_host or {}
    unknown = {str(name) for name in (*source.to_host, *read.values()) if name not in CLASS_NAMES}
    if unknown:
        yield checks.Error(
            f"The ticket source {source.label} maps to classes that do not exist: "
            f"{', '.join(sorted(unknown))}.",
            hint=f'"to_host" and "from_host" know {", ".join(CLASS_NAMES)}.',
            obj=source.model,
            id="ticket_priority.E022",
        )
    column = source.host_field
    if isinstance(column, models.ForeignKey) and dict(source.to_host) == dict(IDENTITY):
        yield checks.Warning(
            f"{source.label}.{column.name} is a foreign key, and the source has no to_host of its "
            "own: its values are the keys 0, 1 and 2.",
            hint=f'Map each class to a key of {column.remote_field.model._meta.label}: "to_host".',
            obj=source.model,
            id="ticket_priority.W029",
        )
    foreign = [value for value in source.to_host.values() if not _is_storable(column, value)]
    foreign += [value for value in read if not _is_of_type(column, value)]
    if foreign:
        yield checks.Error(
            f"The column {source.label}.{column.name} cannot hold {_listed(foreign)}.",
            hint='Write the values in "to_host" and "from_host" as the column holds them, in its '
            "own type and among its choices.",
            obj=source.model,
            id="ticket_priority.E019",
        )


def _check_choices(source: TicketSource) -> Iterator[checks.CheckMessage]:
    values = [source.clean(value) for value, _label in source.host_field.flatchoices]
    lost = [v for v in values if not source.is_unset(v) and source.meaning_of(v) is None]
    if lost:
        yield checks.Warning(
            f"{source.label}.{source.priority_field} may be {_listed(lost)}, which no class is "
            "mapped to: tickets that bear it are neither labels nor shown with a priority.",
            hint='Add it to "from_host"; or to "unset", if it means that nobody has decided.',
            obj=source.model,
            id="ticket_priority.W018",
        )


def _is_of_type(column: models.Field[Any, Any], value: Any) -> bool:
    """Whether the column gives the value back as it is: 4 is not "4"."""
    target = column.target_field if isinstance(column, models.ForeignKey) else column
    try:
        python = target.to_python(value)
        # A member of an enumeration may be given as it is stored.
        return bool(value in (python, target.get_prep_value(python)))
    except Exception:
        return False


def _is_storable(column: models.Field[Any, Any], value: Any) -> bool:
    return value is not None and _is_of_type(column, value) and not why_unfit(column, value)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(repr, values))


def _check_default(source: TicketSource) -> Iterator[checks.CheckMessage]:
    value, column = source.default_value, source.host_field
    has_default = column.has_default() or column.has_db_default()
    if not column.null and not has_default and column.get_default() is None:
        yield checks.Warning(
            f"{source.label}.{column.name} may not be NULL and has no default: a new ticket that "
            "comes without a priority, and for which there is no answer yet, is saved as Medium.",
            hint="Let the column be NULL, or give it a default.",
            obj=source.model,
            id="ticket_priority.W035",
        )
    says_who_decided = (
        source.labelled is not None or type(source).labelled_rows is not TicketSource.labelled_rows
    )
    if says_who_decided:
        return
    if source.unset is None and source.meaning_of(value) is not None:
        yield checks.Warning(
            f"{source.label}.{source.priority_field} is {value!r} wherever nobody chose it. A "
            f"person who chooses {value!r} for a new ticket cannot be told from that, so a "
            "prediction may replace it.",
            hint='Let the column be NULL; or set "unset": with this value if that is wanted, '
            "without it if each of these tickets is to stay as it is.",
            obj=source.model,
            id="ticket_priority.W034",
        )
    if source.to_priority(value) is None:
        return
    yield checks.Warning(
        f"{source.label}.{source.priority_field} is {value!r} wherever nobody chose it, and that "
        "would be taken for a label.",
        hint='Add it to "unset", or name the rows whose priority a person set with "labelled".',
        obj=source.model,
        id="ticket_priority.W021",
    )


def _check_host(source: TicketSource) -> Iterator[checks.CheckMessage]:
    try:
        yield from source.check()
    except Exception as error:
        adapter = f"{type(source).__module__}.{type(source).__qualname__}"
        yield checks.Error(
            f"The check of the ticket source {source.label} failed: {error!r}.",
            hint=f"Mend {adapter}.check().",
            obj=source.model,
            id="ticket_priority.E023",
        )


def is_importable(path: object) -> bool:
    """Say whether a dotted path leads to something."""
    try:
        import_string(str(path))
    except ImportError:
        return False
    return True
