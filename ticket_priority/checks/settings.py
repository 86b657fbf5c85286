"""System checks of the settings and of what they need, with stable ids."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connections, router

from ticket_priority import conf
from ticket_priority.checks.sources import is_importable
from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.artifacts.kinds import SERVING, kind_to_train
from ticket_priority.ml.hyperparameters import presets
from ticket_priority.ml.numbers import is_positive, is_whole
from ticket_priority.ml.policy.rule import DecisionRule, read_costs, read_targets
from ticket_priority.ml.types import PROVENANCES, TrainingConfig
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import audit
from ticket_priority.queues import has_workers, recommended_queue
from ticket_priority.rates import Rate
from ticket_priority.sources.registry import all_sources

Problem = Callable[[Any], str]
"""Says what is wrong with a value, as the end of a sentence; empty where nothing is."""


def _unless(is_valid: Callable[[Any], bool]) -> Problem:
    return lambda value: "" if is_valid(value) else f"is {value!r}"


def _raised_by(read: Callable[[Any], object]) -> Problem:
    def problem(value: Any) -> str:
        try:
            read(value)
        except (TypeError, ValueError) as error:
            return f"is wrong: {error}"
        return ""

    return problem


def _or_none(problem: Problem) -> Problem:
    return lambda value: "" if value is None else problem(value)


def _is_whole(value: Any, least: int = 1) -> bool:
    return is_whole(value) and value >= least


def _are_weights(given: Any) -> bool:
    return isinstance(given, Mapping) and all(
        provenance in PROVENANCES and is_positive(weight) for provenance, weight in given.items()
    )


def _is_rate(value: Any) -> bool:
    with suppress(ValueError):
        return bool(Rate.parse(value))
    return False


def _unless_importable(paths: Any) -> str:
    wrong = isinstance(paths, str) or not all(map(is_importable, paths))
    return "names something that cannot be imported" if wrong else ""


def _unless_mapping(value: Any) -> str:
    return "" if isinstance(value, Mapping) else "must be a dictionary"


_RULES: Final[tuple[tuple[str, str, str, Problem], ...]] = (
    ("E003", "", "MODE", _unless(conf.MODES.__contains__)),
    ("E009", "", "SOURCES", _unless_mapping),
    ("E008", "TRAINING", "GATE_METRIC", _unless(conf.GATE_METRICS.__contains__)),
    ("E031", "TRAINING", "GATE_TOLERANCE", _unless(conf.is_gate_tolerance)),
    ("E025", "TRAINING", "LABEL_WEIGHTS", _unless(_are_weights)),
    ("E032", "TRAINING", "MIN_ROWS", _unless(_is_whole)),
    ("E050", "TRAINING", "RETRAIN", _or_none(_raised_by(lambda given: conf.Retraining(**given)))),
    ("E032", "SERVING", "BATCH_SIZE", _unless(_is_whole)),
    ("E032", "SERVING", "BATCH_TOKENS", _unless(_is_whole)),
    ("E060", "SERVING", "DEADLINE_MS", _or_none(_unless(is_positive))),
    ("E061", "SERVING", "BREAKER_FAILURES", _unless(_is_whole)),
    ("E062", "SERVING", "BREAKER_SECONDS", _unless(is_positive)),
    ("E032", "QUEUE", "CLAIM_SECONDS", _unless(_is_whole)),
    ("E032", "QUEUE", "MAX_ATTEMPTS", _unless(_is_whole)),
    ("E032", "QUEUE", "SWEEP_MINUTES", _unless(_is_whole)),
    ("E040", "DECISIONS", "COSTS", _raised_by(read_costs)),
    ("E041", "DECISIONS", "AUTO_APPLY", _raised_by(read_targets)),
    ("E042", "DECISIONS", "AUDIT_SHARE", _unless(audit.is_share)),
    ("E032", "DECISIONS", "STALE_FORM_MINUTES", _unless(partial(_is_whole, least=0))),
    ("E063", "DECISIONS", "OVERRIDE_RATE", _or_none(_unless(_is_rate))),
    ("E005", "API", "MAX_TEXTS", _unless(_is_whole)),
    ("E006", "API", "THROTTLE_RATE", _or_none(_unless(_is_rate))),
    ("E007", "API", "AUTHENTICATION_CLASSES", _unless_importable),
    ("E007", "API", "PERMISSION_CLASSES", _unless_importable),
)
"""The id of the check of each setting, its group (empty at the top level), its key, the problem."""

_HINTS: Final = {
    "E003": f"Choose one of {', '.join(conf.MODES)}.",
    "E005": "Give the number of texts a request may hold, 1 or more.",
    "E006": 'Write "120/min" (or /s, /hour, /day), or None for no limit.',
    "E007": "Give a list of dotted paths of Django REST framework classes.",
    "E008": f"Choose one of {', '.join(conf.GATE_METRICS)}.",
    "E009": 'Write {"app_label.Model": {"text_fields": (...)}}.',
    "E025": f"Map {', '.join(PROVENANCES)} to numbers above 0.",
    "E031": "Give a number of at least 0 and below 1, such as 0.01.",
    "E032": "Give a whole number of at least 1, or leave it out; STALE_FORM_MINUTES may be 0.",
    "E040": "For each true class, say what each wrong choice costs, at least 0: "
    '{"high": {"low": 5, "medium": 2}, "medium": {...}, "low": {...}}.',
    "E041": 'Map classes to the precision you ask for, such as {"high": 0.9}; a class that is left '
    "out is only suggested. None applies every answer.",
    "E042": f"Give a part of the new tickets, 0 to {audit.MOST}.",
    "E050": "Give None, or a dictionary with some of "
    f"{', '.join(item.name for item in fields(conf.Retraining))}.",
    "E060": "Give the milliseconds that a save may wait for the model, or None.",
    "E061": "Give the number of failures in a row after which the model is not asked.",
    "E062": "Give the seconds for which a model that fails is not asked.",
    "E063": 'Write "1000/day" (or /s, /min, /hour), or None for no limit.',
}

_FORMER: Final = {
    "TRAINING": ("TRAINING", "HYPERPARAMETERS"),
    "MIN_TRAINING_ROWS": ("TRAINING", "MIN_ROWS"),
    "METRICS": ("METRICS", "ENABLED"),
    "METRICS_TOKEN": ("METRICS", "TOKEN"),
    **{f"API_{key}": ("API", key) for key in conf.setting_names(conf.ApiSettings)},
}
"""Former keys that are now found under another name, by group and key."""


def check_settings(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Find keys that do not exist, and values that a setting cannot have."""
    given = getattr(settings, conf.SETTING, {})
    if not isinstance(given, dict):
        yield checks.Error(f"{conf.SETTING} must be a dictionary.", id="ticket_priority.E001")
        return
    yield from _check_keys(given)
    for number, group, key, problem_of in _RULES:
        found = conf.user_group(group) if group else given
        if key in found and (problem := problem_of(found[key])):
            name = _path(group, key) if group else _path(key)
            identifier = f"ticket_priority.{number}"
            yield checks.Error(f"{name} {problem}.", hint=_HINTS[number], id=identifier)
    yield from _check_hyperparameters(conf.user_group("TRAINING"))


def _check_hyperparameters(given: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    try:
        presets.configure(
            str(given.get("MODEL_NAME") or presets.EMBEDDED),
            given.get("PRESET", presets.DEFAULT_PRESET),
            given.get("HYPERPARAMETERS", {}),
        )
    except (TypeError, ValueError) as error:
        yield checks.Error(
            f"{_path('TRAINING', 'PRESET')} or ['HYPERPARAMETERS'] is wrong: {error}.",
            hint="The keys of HYPERPARAMETERS are the fields of "
            "ticket_priority.ml.types.TrainingConfig.",
            id="ticket_priority.E004",
        )


def _check_keys(given: Mapping[Any, Any]) -> Iterator[checks.CheckMessage]:
    known = conf.setting_names()
    for key in sorted(set(given) - set(known), key=str):
        yield checks.Error(
            f"{conf.SETTING} has an unknown key {key!r}.",
            hint=_new_name_of(key) or f"Known keys: {', '.join(known)}.",
            id="ticket_priority.E002",
        )
    for group, settings_class in conf.GROUPS.items():
        names = conf.setting_names(settings_class)
        found = conf.expanded(group, given.get(group, {}))
        if not isinstance(found, Mapping):
            yield checks.Error(
                f"{conf.SETTING}[{group!r}] is {found!r}; it must be a dictionary.",
                hint=f"Its keys: {', '.join(names)}.",
                id="ticket_priority.E001",
            )
            continue
        for key in sorted(set(found) - set(names), key=str):
            yield checks.Error(
                f"{conf.SETTING}[{group!r}] has an unknown key {key!r}.",
                hint=_new_name_in(group, key) or f"Known keys: {', '.join(names)}.",
                id="ticket_priority.E002",
            )


def _new_name_of(key: Any) -> str | None:
    """Return the advice to write a former or misspelt top-level key by its name of today."""
    name = str(key).upper()
    places = {
        other: (group, other)
        for group, cls in conf.GROUPS.items()
        for other in conf.setting_names(cls)
    } | _FORMER
    if name in places:
        return _advice(*places[name])
    close = difflib.get_close_matches(name, [*conf.setting_names(), *places], n=1)
    if not close:
        return None
    return _advice(*places.get(close[0], (close[0],)))


def _new_name_in(group: str, key: Any) -> str | None:
    """Return the advice for a key of a group that is misspelt, or stands in the wrong group."""
    name = str(key).upper()
    if group == "TRAINING" and str(key) in {item.name for item in fields(TrainingConfig)}:
        return f"Fields of TrainingConfig: {conf.SETTING}['TRAINING']['HYPERPARAMETERS'][{key!r}]."
    close = difflib.get_close_matches(name, conf.setting_names(conf.GROUPS[group]), n=1)
    return _advice(group, close[0]) if close else _new_name_of(key)


def _advice(*keys: str) -> str:
    return f"Write {_path(*keys)}."


def _path(*keys: str) -> str:
    return conf.SETTING + "".join(f"[{key!r}]" for key in keys)


def check_certificates(databases: Any = None, **kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Find an active version without certificates, with `check --database` and in `migrate`."""
    options = conf.get_settings().decisions
    if options.auto_apply is None or router.db_for_read(ModelVersion) not in (databases or ()):
        return
    # E040 and E041 report wrong settings.
    with suppress(DatabaseError, ValueError):
        version = ModelVersion.objects.active()
        if version is None:
            return
        rule = DecisionRule.of(version.metrics, costs=options.costs, targets=options.auto_apply)
        if rule.lacks_certificates:
            yield checks.Warning(
                f"No answer of model version {version.name} is certified for today's AUTO_APPLY "
                "and COSTS, so each is only suggested.",
                hint="manage.py certify_priority_model",
                id="ticket_priority.W041",
            )


def check_serving(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Find packages that serving needs and that are not installed."""
    if "CLASSIFIERS" in conf.user_group("SERVING"):
        return
    if missing := SERVING.missing:
        yield checks.Warning(
            f"Tickets cannot be classified: {', '.join(missing)} not installed.",
            hint=SERVING.command,
            id="ticket_priority.W020",
        )
        return
    kind = kind_to_train(conf.get_settings().training.model_name)
    if missing := kind.serving.missing:
        yield checks.Warning(
            f"A {kind.name} cannot be served: {', '.join(missing)} not installed.",
            hint=f"{kind.serving.command}; or, where linear models are "
            f'enough, set {conf.SETTING}["TRAINING"]["MODEL_NAME"] to "{linear_config.KIND}".',
            id="ticket_priority.W024",
        )


def check_queue(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Find settings that need workers where there are none."""
    queue = recommended_queue()
    deferred = [source.label for source in all_sources() if source.effective_mode != "sync"]
    if deferred and not has_workers():
        yield checks.Warning(
            f"{', '.join(deferred)}: the mode needs a queue with workers, and there is none, so "
            "tickets are classified in the request, after the commit.",
            hint=f"{queue.setup} and run {queue.worker_command}; or choose the mode sync.",
            id="ticket_priority.W030",
        )
    if conf.user_group("TRAINING").get("RETRAIN") is not None and not has_workers():
        yield checks.Warning(
            f"{conf.SETTING}['TRAINING']['RETRAIN'] needs a queue with workers, and there is none, "
            "so nothing is trained by the clock.",
            hint=f"{queue.setup}, and run manage.py migrate and {queue.worker_command}; or let "
            "cron run manage.py train_priority_model.",
            id="ticket_priority.W052",
        )


def check_sqlite(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Find SQLite databases that do not take the write lock when a transaction begins."""
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
