"""The registry of ticket sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from django.apps import apps
from django.db import models
from django.utils.module_loading import import_string

from ticket_priority.exceptions import SourceError
from ticket_priority.sources.base import TicketSource

_sources: dict[type[models.Model], TicketSource] = {}
_subscribers: list[Callable[[TicketSource], None]] = []


def register(
    model: type[models.Model] | str,
    *,
    text_fields: Sequence[str] | None = None,
    adapter: str | None = None,
    **options: Any,
) -> TicketSource:
    """Give a model automatic priority; may be called at any time, and replaces an earlier call.

    `model` is a class or "app_label.ModelName"; `adapter` the dotted path of a `TicketSource`
    subclass, which may define `text_fields` and other options itself; the options are the fields of
    `TicketSource`. No column is added. Raises SourceError for an unknown model or option.
    """
    try:
        host = apps.get_model(model) if isinstance(model, str) else model
        build = _adapter(adapter) if adapter else TicketSource
        if text_fields is not None:
            options["text_fields"] = text_fields
        _refuse_unknown(build, options)
        source = build(model=host, **options)
    except (LookupError, ImportError, TypeError, ValueError) as error:
        raise SourceError(f"The ticket source {model!r} cannot be registered: {error}") from error
    _sources[host] = source
    for subscriber in _subscribers:
        subscriber(source)
    return source


def _adapter(path: str) -> type[TicketSource]:
    found = import_string(path)
    if not (isinstance(found, type) and issubclass(found, TicketSource)):
        raise TypeError(f"the adapter {path} is not a subclass of TicketSource.")
    return found


def _refuse_unknown(build: type[TicketSource], options: Mapping[str, Any]) -> None:
    known = [item.name for item in fields(build) if item.init and item.name != "model"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(
            f"there is no option {', '.join(unknown)}. Options: {', '.join(known)}, adapter."
        )


def unregister(model: type[models.Model]) -> None:
    """Remove a source. Its receivers stay connected and do nothing."""
    _sources.pop(model, None)


def subscribe(subscriber: Callable[[TicketSource], None]) -> None:
    """Call `subscriber` for each source, registered before or later."""
    _subscribers.append(subscriber)
    for source in _sources.values():
        subscriber(source)


def all_sources() -> list[TicketSource]:
    """Return the registered sources, one for each table."""
    return [source for model, source in _sources.items() if _of_its_table(model) is model]


def left_out() -> list[tuple[TicketSource, TicketSource]]:
    """Return the sources that are left out, each with the one that has its table's tickets."""
    chosen = {model: _of_its_table(model) for model in _sources}
    pairs = ((it, other) for it, other in chosen.items() if other not in (it, None))
    return [(_sources[it], _sources[other]) for it, other in pairs if other is not None]


def _of_its_table(model: type[models.Model]) -> type[models.Model] | None:
    """Return the registered model whose source has the tickets of a model's table.

    A proxy has its model's rows, so it can have no rules of its own: who may see a ticket must
    not depend on the name under which it is asked for.
    """
    table = model._meta.concrete_model if hasattr(model, "_meta") else None
    if table is None or table in _sources:
        return table
    return next((other for other in _sources if other._meta.concrete_model is table), None)


def get_source(model: type[models.Model]) -> TicketSource:
    """Return the source of a model's table, or of its parent's; raises SourceError."""
    for base in model.__mro__:
        if found := _of_its_table(base):
            return _sources[found]
    raise SourceError(
        f"{model.__name__} is not a ticket source: give it a PriorityField, or name it in "
        'TICKET_PRIORITY["SOURCES"].'
    )


def find_source(label: str) -> TicketSource:
    """Return the source called `app_label.ModelName` in any case; raises SourceError."""
    sources = all_sources()
    for source in sources:
        # Rows about a proxy's tickets bear the label of its model.
        table = source.model._meta.concrete_model or source.model
        if label.lower() in (source.label.lower(), table._meta.label_lower):
            return source
    known = ", ".join(sorted(source.label for source in sources)) or "none"
    raise SourceError(f"There is no ticket source {label!r}. Registered: {known}.")


def find_sources(labels: Iterable[str] = ()) -> list[TicketSource]:
    """Return the sources of these labels, else all sources that are available.

    Raises SourceError for a label that is unknown or unavailable, and where no source is left.
    """
    named = [find_source(label) for label in labels]
    sources = named or all_sources()
    available = [source for source in sources if not source.why_unavailable()]
    if len(available) < len(named) or not available:
        reasons = [reason for source in sources if (reason := source.why_unavailable())]
        raise SourceError(" ".join(reasons) or "No model is a ticket source. See manage.py check.")
    return available
