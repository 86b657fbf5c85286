"""System checks with stable ids."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import FieldDoesNotExist
from django.db import connections
from django.utils.module_loading import import_string

from ticket_priority import conf, queue
from ticket_priority.exceptions import SourceError
from ticket_priority.interfaces import CLASS_NAMES, PROVENANCES, TrainingConfig
from ticket_priority.sources import TicketSource, all_sources, register

_broken_sources: dict[str, str] = {}


def register_checks() -> None:
    checks.register(check_settings, "ticket_priority")
    checks.register(check_api, "ticket_priority")
    checks.register(check_sources, "ticket_priority")
    checks.register(check_serving, "ticket_priority")
    checks.register(check_queue, "ticket_priority")
    checks.register(check_sqlite, "ticket_priority")


def register_configured_sources() -> None:
    """Register `TICKET_PRIORITY["SOURCES"]`; what fails is kept for `check_sources`."""
    _broken_sources.clear()
    configured = conf.get_settings().sources
    for label, options in configured.items() if isinstance(configured, dict) else ():
        try:
            register(label, **{name: value for name, value in options.items() if name != "model"})
        except (SourceError, TypeError, AttributeError) as error:
            _broken_sources[str(label)] = str(error)


def check_settings(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    given = getattr(settings, conf.SETTING, {})
    if not isinstance(given, dict):
        yield checks.Error(f"{conf.SETTING} must be a dictionary.", id="ticket_priority.E001")
        return
    known = {name.upper() for name in conf.setting_names()}
    for key in sorted(set(given) - known, key=str):
        yield checks.Error(
            f"{conf.SETTING} has an unknown key {key!r}.",
            hint=f"Known keys: {', '.join(sorted(known))}.",
            id="ticket_priority.E002",
        )
    mode = given.get("MODE", "sync")
    if mode not in conf.MODES:
        yield checks.Error(
            f"{conf.SETTING}['MODE'] is {mode!r}.",
            hint=f"Choose one of {', '.join(conf.MODES)}.",
            id="ticket_priority.E003",
        )
    metric = given.get("GATE_METRIC", conf.GATE_METRICS[0])
    if metric not in conf.GATE_METRICS:
        yield checks.Error(
            f"{conf.SETTING}['GATE_METRIC'] is {metric!r}.",
            hint=f"Choose one of {', '.join(conf.GATE_METRICS)}.",
            id="ticket_priority.E008",
        )
    weights = given.get("LABEL_WEIGHTS", {})
    if not isinstance(weights, Mapping) or not all(map(_is_weight, weights.items())):
        yield checks.Error(
            f"{conf.SETTING}['LABEL_WEIGHTS'] is {weights!r}.",
            hint=f"Map {', '.join(PROVENANCES)} to numbers above 0.",
            id="ticket_priority.E024",
        )
    try:
        TrainingConfig(**given.get("TRAINING", {}))
    except (TypeError, ValueError) as error:
        yield checks.Error(
            f"{conf.SETTING}['TRAINING'] is wrong: {error}.",
            hint="Its keys are the fields of ticket_priority.interfaces.TrainingConfig.",
            id="ticket_priority.E004",
        )


def _is_weight(item: tuple[Any, Any]) -> bool:
    provenance, weight = item
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    return provenance in PROVENANCES and is_number and 0 < weight < math.inf


def check_api(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    given = conf.user_settings()
    most = given.get("API_MAX_TEXTS", 1)
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        yield checks.Error(
            f"{conf.SETTING}['API_MAX_TEXTS'] is {most!r}.",
            hint="Give the number of texts a request may hold, 1 or more.",
            id="ticket_priority.E005",
        )
    rate = given.get("API_THROTTLE_RATE")
    if rate is not None and not re.fullmatch(r"\d+/[smhd][a-z]*", str(rate)):
        yield checks.Error(
            f"{conf.SETTING}['API_THROTTLE_RATE'] is {rate!r}.",
            hint='Write "120/min" (or /s, /hour, /day), or None for no limit.',
            id="ticket_priority.E006",
        )
    for key in ("API_AUTHENTICATION_CLASSES", "API_PERMISSION_CLASSES"):
        paths = given.get(key, ())
        if isinstance(paths, str) or not all(map(_is_importable, paths)):
            yield checks.Error(
                f"{conf.SETTING}[{key!r}] names something that cannot be imported.",
                hint="Give a list of dotted paths of Django REST framework classes.",
                id="ticket_priority.E007",
            )


def _is_importable(path: object) -> bool:
    try:
        import_string(str(path))
    except ImportError:
        return False
    return True


def check_sources(**kwargs: Any) -> Iterator[checks.CheckMessage]:
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
    for source in all_sources():
        yield from _check_source(source)


def _check_source(source: TicketSource) -> Iterator[checks.CheckMessage]:
    named = [source.priority_field, *source.text_fields]
    named += filter(None, (source.created_field, source.language_field, source.segment_field))
    missing = [name for name in named if not _has_attribute(source, name)]
    if missing:
        yield checks.Error(
            f"The ticket source {source.label} has no {', '.join(missing)}.",
            hint="Name fields of the model in text_fields, priority_field and the like.",
            obj=source.model,
            id="ticket_priority.E012",
        )
        return
    if not source.text_fields:
        yield checks.Error(
            f"The ticket source {source.label} names no text_fields.",
            obj=source.model,
            id="ticket_priority.E013",
        )
    gaps = [name for name in CLASS_NAMES if name not in source.to_host]
    if gaps:
        yield checks.Error(
            f"The ticket source {source.label} maps no host value for {', '.join(gaps)}.",
            hint='Complete "to_host".',
            obj=source.model,
            id="ticket_priority.E014",
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
        if isinstance(value, str) and not _is_importable(value):
            yield checks.Error(
                f"The ticket source {source.label} has a {name} that cannot be imported: {value}.",
                hint="Give a callable or its dotted path.",
                obj=source.model,
                id="ticket_priority.E016",
            )


def _has_attribute(source: TicketSource, name: str) -> bool:
    try:
        source.model._meta.get_field(name)
    except FieldDoesNotExist:
        return hasattr(source.model, name)
    return True


def check_serving(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    if "CLASSIFIERS" in conf.user_settings():
        return
    missing = [
        name
        for name in ("onnxruntime", "tokenizers", "numpy")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        yield checks.Warning(
            f"Tickets cannot be classified: {', '.join(missing)} not installed.",
            hint='pip install "django-ticket-priority[serving]"',
            id="ticket_priority.W020",
        )


def check_queue(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    deferred = [source.label for source in all_sources() if source.effective_mode != "sync"]
    if deferred and not queue.is_installed():
        yield checks.Warning(
            f"{', '.join(deferred)}: the mode needs a queue, and django_q is not installed, so "
            "tickets are classified in the request, after the commit.",
            hint='pip install "django-ticket-priority[queue]", add "django_q" to INSTALLED_APPS '
            "and run manage.py qcluster; or choose the mode sync.",
            id="ticket_priority.W030",
        )


def check_sqlite(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    for alias in connections:
        database = connections[alias].settings_dict
        options = database.get("OPTIONS", {})
        if "sqlite3" in database["ENGINE"] and options.get("transaction_mode") != "IMMEDIATE":
            yield checks.Warning(
                f"The SQLite database {alias!r} starts transactions deferred: web processes and "
                "workers that write at once meet 'database is locked'.",
                hint='"OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20}',
                id="ticket_priority.W040",
            )
