"""System checks of the ticket sources, and registration of those in the settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.exceptions import ValidationError
from django.db import DatabaseError, models
from django.utils.module_loading import import_string

from ticket_priority import conf
from ticket_priority.exceptions import SourceError
from ticket_priority.ml.types import CLASS_NAMES
from ticket_priority.sources.base import TicketSource, is_column
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


def _check_source(source: TicketSource) -> Iterator[checks.CheckMessage]:
    if missing := list(_check_fields(source)):
        yield from missing
        return
    yield from _check_options(source)
    if wrong := list(_check_mapping(source)):
        yield from wrong
    else:
        # A default may query a table that does not exist yet.
        with suppress(DatabaseError):
            yield from _check_choices(source)
            yield from _check_default(source)
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
        return bool(target.to_python(value) == value)
    except (ValidationError, TypeError, ValueError):
        return False


def _is_storable(column: models.Field[Any, Any], value: Any) -> bool:
    if value is None or not _is_of_type(column, value):
        return False
    choices = [key for key, _label in column.flatchoices]
    try:
        column.run_validators(value)
    except ValidationError:
        return False
    return not choices or value in choices


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(repr, values))


def _check_default(source: TicketSource) -> Iterator[checks.CheckMessage]:
    value = source.default_value
    says_who_decided = (
        source.labelled is not None or type(source).labelled_rows is not TicketSource.labelled_rows
    )
    if says_who_decided or source.to_priority(value) is None:
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
