"""System checks with stable ids."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connections, models, router
from django.utils.module_loading import import_string

from ticket_priority import audit, conf, linear_config, policy, presets, queue
from ticket_priority.exceptions import SourceError
from ticket_priority.interfaces import CLASS_NAMES, PROVENANCES
from ticket_priority.models import ModelVersion
from ticket_priority.registry import all_sources, register
from ticket_priority.sources import TicketSource, is_column

MIDDLEWARE: Final = "ticket_priority.middleware.acting_user_middleware"

_broken_sources: dict[str, str] = {}


def register_checks() -> None:
    checks.register(check_settings, "ticket_priority")
    checks.register(check_decisions, "ticket_priority")
    checks.register(check_write_path, "ticket_priority")
    checks.register(check_certificates, "ticket_priority", checks.Tags.database)
    checks.register(check_api, "ticket_priority")
    checks.register(check_sources, "ticket_priority")
    checks.register(check_serving, "ticket_priority")
    checks.register(check_queue, "ticket_priority")
    checks.register(check_sqlite, "ticket_priority")


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
    if not isinstance(given.get("SOURCES", {}), Mapping):
        yield checks.Error(
            f"{conf.SETTING}['SOURCES'] must be a dictionary.",
            hint='Write {"app_label.Model": {"text_fields": (...)}}.',
            id="ticket_priority.E009",
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
            id="ticket_priority.E025",
        )
    try:
        presets.configure(
            str(given.get("MODEL_NAME") or presets.EMBEDDED),
            given.get("PRESET", presets.DEFAULT_PRESET),
            given.get("TRAINING", {}),
        )
    except (TypeError, ValueError) as error:
        yield checks.Error(
            f"{conf.SETTING}['PRESET'] or ['TRAINING'] is wrong: {error}.",
            hint="The keys of TRAINING are the fields of "
            "ticket_priority.interfaces.TrainingConfig.",
            id="ticket_priority.E004",
        )


def _is_weight(item: tuple[Any, Any]) -> bool:
    provenance, weight = item
    return provenance in PROVENANCES and _is_number_above_0(weight)


def _is_number_above_0(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


def check_write_path(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    deadline = conf.user_settings().get("DEADLINE_MS", 1)
    if deadline is not None and not _is_number_above_0(deadline):
        yield checks.Error(
            f"{conf.SETTING}['DEADLINE_MS'] is {deadline!r}.",
            hint="Give the milliseconds that a save may wait for the model, or None.",
            id="ticket_priority.E060",
        )
    failures = conf.user_settings().get("BREAKER_FAILURES", 1)
    if not isinstance(failures, int) or not _is_number_above_0(failures):
        yield checks.Error(
            f"{conf.SETTING}['BREAKER_FAILURES'] is {failures!r}.",
            hint="Give the number of failures in a row after which the model is left alone.",
            id="ticket_priority.E061",
        )
    seconds = conf.user_settings().get("BREAKER_SECONDS", 1)
    if not _is_number_above_0(seconds):
        yield checks.Error(
            f"{conf.SETTING}['BREAKER_SECONDS'] is {seconds!r}.",
            hint="Give the seconds for which a model that fails is left alone.",
            id="ticket_priority.E062",
        )


def check_decisions(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    given = conf.user_settings()
    try:
        policy.read_costs(given.get("COSTS"))
    except ValueError as error:
        yield checks.Error(
            f"{conf.SETTING}['COSTS'] is wrong: {error}.",
            hint="For each true class, say what each wrong choice costs, at least 0: "
            '{"high": {"low": 5, "medium": 2}, "medium": {...}, "low": {...}}.',
            id="ticket_priority.E040",
        )
    try:
        policy.read_targets(given.get("AUTO_APPLY"))
    except ValueError as error:
        yield checks.Error(
            f"{conf.SETTING}['AUTO_APPLY'] is wrong: {error}.",
            hint='Map classes to the precision you ask for, such as {"high": 0.9}; a class that is '
            "left out is only suggested. None applies every answer.",
            id="ticket_priority.E041",
        )
    share = given.get("AUDIT_SHARE", 0.0)
    if not audit.is_share(share):
        yield checks.Error(
            f"{conf.SETTING}['AUDIT_SHARE'] is {share!r}.",
            hint=f"Give a part of the new tickets, 0 to {audit.MOST}.",
            id="ticket_priority.E042",
        )


def check_certificates(databases: Any = None, **kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Run with `check --database`, and by `migrate`, before which there may be no table."""
    options = conf.get_settings()
    if options.auto_apply is None or router.db_for_read(ModelVersion) not in (databases or ()):
        return
    # Settings that are wrong are E040's and E041's to tell.
    with suppress(DatabaseError, ValueError):
        version = ModelVersion.objects.active()
        if version is None:
            return
        rule = policy.DecisionRule.of(
            version.metrics, costs=options.costs, targets=options.auto_apply
        )
        if rule.lacks_certificates:
            yield checks.Warning(
                f"No answer of model version {version.name} is certified for today's AUTO_APPLY "
                "and COSTS, so each is only suggested.",
                hint="manage.py certify_priority_model",
                id="ticket_priority.W041",
            )


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
    if missing := list(_check_fields(source)):
        yield from missing
        return
    yield from _check_options(source)
    if wrong := list(_check_mapping(source)):
        yield from wrong
    else:
        # A default may be asked of a table that is not there yet.
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
        if isinstance(value, str) and not _is_importable(value):
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


def check_serving(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    if "CLASSIFIERS" in conf.user_settings():
        return
    if missing := _missing("numpy", "safetensors"):
        yield checks.Warning(
            f"Tickets cannot be classified: {', '.join(missing)} not installed.",
            hint='pip install "django-ticket-priority[serving]"',
            id="ticket_priority.W020",
        )
        return
    missing = _missing("onnxruntime", "tokenizers")
    if missing and conf.get_settings().model_name != linear_config.KIND:
        yield checks.Warning(
            f"A transformer cannot be served: {', '.join(missing)} not installed.",
            hint='pip install "django-ticket-priority[serving]"; or, where linear models are '
            f'enough, set {conf.SETTING}["MODEL_NAME"] to "{linear_config.KIND}".',
            id="ticket_priority.W024",
        )


def _missing(*names: str) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


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
