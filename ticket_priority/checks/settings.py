"""System checks of the settings and of what they need, with stable ids."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connections, router

from ticket_priority import conf
from ticket_priority.checks import sources as source_checks
from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.artifacts.kinds import SERVING, kind_to_train
from ticket_priority.ml.hyperparameters import presets
from ticket_priority.ml.numbers import is_positive, is_whole
from ticket_priority.ml.policy import rule as policy
from ticket_priority.ml.types import PROVENANCES, TrainingConfig
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import audit
from ticket_priority.queues import has_workers, recommended_queue
from ticket_priority.rates import Rate
from ticket_priority.sources.registry import all_sources

_WHOLE_NUMBERS: Final = {
    ("SERVING", "BATCH_SIZE"): 1,
    ("SERVING", "BATCH_TOKENS"): 1,
    ("QUEUE", "CLAIM_SECONDS"): 1,
    ("QUEUE", "MAX_ATTEMPTS"): 1,
    ("QUEUE", "SWEEP_MINUTES"): 1,
    ("TRAINING", "MIN_ROWS"): 1,
    ("DECISIONS", "STALE_FORM_MINUTES"): 0,
}
"""The least that a setting may be, by group and key."""

_FORMER: Final = {
    "TRAINING": ("TRAINING", "HYPERPARAMETERS"),
    "MIN_TRAINING_ROWS": ("TRAINING", "MIN_ROWS"),
    "METRICS": ("METRICS", "ENABLED"),
    "METRICS_TOKEN": ("METRICS", "TOKEN"),
    **{f"API_{key}": ("API", key) for key in conf.setting_names(conf.ApiSettings)},
}
"""Former keys that are now found under another name, by group and key."""


def register_checks() -> None:
    checks.register(check_settings, "ticket_priority")
    checks.register(check_training, "ticket_priority")
    checks.register(check_numbers, "ticket_priority")
    checks.register(check_decisions, "ticket_priority")
    checks.register(check_write_path, "ticket_priority")
    checks.register(check_certificates, "ticket_priority", checks.Tags.database)
    checks.register(check_api, "ticket_priority")
    checks.register(source_checks.check_sources, "ticket_priority")
    checks.register(check_serving, "ticket_priority")
    checks.register(check_queue, "ticket_priority")
    checks.register(check_sqlite, "ticket_priority")


def check_settings(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    given = getattr(settings, conf.SETTING, {})
    if not isinstance(given, dict):
        yield checks.Error(f"{conf.SETTING} must be a dictionary.", id="ticket_priority.E001")
        return
    yield from _check_keys(given)
    mode = given.get("MODE", "sync")
    if mode not in conf.MODES:
        yield checks.Error(
            f"{conf.SETTING}['MODE'] is {mode!r}.",
            hint=f"Choose one of {', '.join(conf.MODES)}.",
            id="ticket_priority.E003",
        )


def _check_keys(given: Mapping[Any, Any]) -> Iterator[checks.CheckMessage]:
    known = conf.setting_names()
    for key in sorted(set(given) - set(known), key=str):
        yield checks.Error(
            f"{conf.SETTING} has an unknown key {key!r}.",
            hint=_new_name_of(key) or f"Known keys: {', '.join(known)}.",
            id="ticket_priority.E002",
        )
    if not isinstance(given.get("SOURCES", {}), Mapping):
        yield checks.Error(
            f"{conf.SETTING}['SOURCES'] must be a dictionary.",
            hint='Write {"app_label.Model": {"text_fields": (...)}}.',
            id="ticket_priority.E009",
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
    return f"Write {conf.SETTING}{''.join(f'[{key!r}]' for key in keys)}."


def check_training(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    given = conf.user_group("TRAINING")
    name = f"{conf.SETTING}['TRAINING']"
    metric = given.get("GATE_METRIC", conf.GATE_METRICS[0])
    if metric not in conf.GATE_METRICS:
        yield checks.Error(
            f"{name}['GATE_METRIC'] is {metric!r}.",
            hint=f"Choose one of {', '.join(conf.GATE_METRICS)}.",
            id="ticket_priority.E008",
        )
    tolerance = given.get("GATE_TOLERANCE", 0)
    if not conf.is_gate_tolerance(tolerance):
        yield checks.Error(
            f"{name}['GATE_TOLERANCE'] is {tolerance!r}.",
            hint="Give a number of at least 0 and below 1, such as 0.01.",
            id="ticket_priority.E031",
        )
    weights = given.get("LABEL_WEIGHTS", {})
    if not isinstance(weights, Mapping) or not all(map(_is_weight, weights.items())):
        yield checks.Error(
            f"{name}['LABEL_WEIGHTS'] is {weights!r}.",
            hint=f"Map {', '.join(PROVENANCES)} to numbers above 0.",
            id="ticket_priority.E025",
        )
    try:
        presets.configure(
            str(given.get("MODEL_NAME") or presets.EMBEDDED),
            given.get("PRESET", presets.DEFAULT_PRESET),
            given.get("HYPERPARAMETERS", {}),
        )
    except (TypeError, ValueError) as error:
        yield checks.Error(
            f"{name}['PRESET'] or ['HYPERPARAMETERS'] is wrong: {error}.",
            hint="The keys of HYPERPARAMETERS are the fields of "
            "ticket_priority.ml.types.TrainingConfig.",
            id="ticket_priority.E004",
        )
    try:
        if given.get("RETRAIN") is not None:
            conf.Retraining(**given["RETRAIN"])
    except (TypeError, ValueError) as error:
        yield checks.Error(
            f"{name}['RETRAIN'] is wrong: {error}.",
            hint="Give None, or a dictionary with some of "
            f"{', '.join(item.name for item in fields(conf.Retraining))}.",
            id="ticket_priority.E050",
        )


def check_numbers(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    for (group, name), least in _WHOLE_NUMBERS.items():
        value = conf.user_group(group).get(name, least)
        if not is_whole(value) or value < least:
            yield checks.Error(
                f"{conf.SETTING}[{group!r}][{name!r}] is {value!r}.",
                hint=f"Give a whole number of at least {least}, or leave it out.",
                id="ticket_priority.E032",
            )


def _is_weight(item: tuple[Any, Any]) -> bool:
    provenance, weight = item
    return provenance in PROVENANCES and is_positive(weight)


def _is_rate(value: Any) -> bool:
    try:
        Rate.parse(value)
    except ValueError:
        return False
    return True


def check_write_path(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    serving = conf.user_group("SERVING")
    deadline = serving.get("DEADLINE_MS", 1)
    if deadline is not None and not is_positive(deadline):
        yield checks.Error(
            f"{conf.SETTING}['SERVING']['DEADLINE_MS'] is {deadline!r}.",
            hint="Give the milliseconds that a save may wait for the model, or None.",
            id="ticket_priority.E060",
        )
    failures = serving.get("BREAKER_FAILURES", 1)
    if not isinstance(failures, int) or not is_positive(failures):
        yield checks.Error(
            f"{conf.SETTING}['SERVING']['BREAKER_FAILURES'] is {failures!r}.",
            hint="Give the number of failures in a row after which the model is left alone.",
            id="ticket_priority.E061",
        )
    seconds = serving.get("BREAKER_SECONDS", 1)
    if not is_positive(seconds):
        yield checks.Error(
            f"{conf.SETTING}['SERVING']['BREAKER_SECONDS'] is {seconds!r}.",
            hint="Give the seconds for which a model that fails is left alone.",
            id="ticket_priority.E062",
        )
    rate = conf.user_group("DECISIONS").get("OVERRIDE_RATE")
    if rate is not None and not _is_rate(rate):
        yield checks.Error(
            f"{conf.SETTING}['DECISIONS']['OVERRIDE_RATE'] is {rate!r}.",
            hint='Write "1000/day" (or /s, /min, /hour), or None to let each decide without limit.',
            id="ticket_priority.E063",
        )


def check_decisions(**kwargs: Any) -> Iterator[checks.CheckMessage]:
    given = conf.user_group("DECISIONS")
    try:
        policy.read_costs(given.get("COSTS"))
    except ValueError as error:
        yield checks.Error(
            f"{conf.SETTING}['DECISIONS']['COSTS'] is wrong: {error}.",
            hint="For each true class, say what each wrong choice costs, at least 0: "
            '{"high": {"low": 5, "medium": 2}, "medium": {...}, "low": {...}}.',
            id="ticket_priority.E040",
        )
    try:
        policy.read_targets(given.get("AUTO_APPLY"))
    except ValueError as error:
        yield checks.Error(
            f"{conf.SETTING}['DECISIONS']['AUTO_APPLY'] is wrong: {error}.",
            hint='Map classes to the precision you ask for, such as {"high": 0.9}; a class that is '
            "left out is only suggested. None applies every answer.",
            id="ticket_priority.E041",
        )
    share = given.get("AUDIT_SHARE", 0.0)
    if not audit.is_share(share):
        yield checks.Error(
            f"{conf.SETTING}['DECISIONS']['AUDIT_SHARE'] is {share!r}.",
            hint=f"Give a part of the new tickets, 0 to {audit.MOST}.",
            id="ticket_priority.E042",
        )


def check_certificates(databases: Any = None, **kwargs: Any) -> Iterator[checks.CheckMessage]:
    """Run with `check --database`, and by `migrate`, before which there may be no table."""
    options = conf.get_settings().decisions
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
    given = conf.user_group("API")
    most = given.get("MAX_TEXTS", 1)
    if not is_whole(most) or most < 1:
        yield checks.Error(
            f"{conf.SETTING}['API']['MAX_TEXTS'] is {most!r}.",
            hint="Give the number of texts a request may hold, 1 or more.",
            id="ticket_priority.E005",
        )
    rate = given.get("THROTTLE_RATE")
    if rate is not None and not _is_rate(rate):
        yield checks.Error(
            f"{conf.SETTING}['API']['THROTTLE_RATE'] is {rate!r}.",
            hint='Write "120/min" (or /s, /hour, /day), or None for no limit.',
            id="ticket_priority.E006",
        )
    for key in ("AUTHENTICATION_CLASSES", "PERMISSION_CLASSES"):
        paths = given.get(key, ())
        if isinstance(paths, str) or not all(map(source_checks.is_importable, paths)):
            yield checks.Error(
                f"{conf.SETTING}['API'][{key!r}] names something that cannot be imported.",
                hint="Give a list of dotted paths of Django REST framework classes.",
                id="ticket_priority.E007",
            )


def check_serving(**kwargs: Any) -> Iterator[checks.CheckMessage]:
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
