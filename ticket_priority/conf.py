"""The settings: `TICKET_PRIORITY` with its defaults. No other module reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.signals import setting_changed

from ticket_priority.ml.artifacts.kinds import KINDS
from ticket_priority.ml.hyperparameters.presets import DEFAULT_PRESET
from ticket_priority.ml.numbers import is_number, is_positive, is_whole
from ticket_priority.rates import Rate

SETTING: Final = "TICKET_PRIORITY"
MODES: Final = ("sync", "async", "suggest")
ACTIVATE_CHOICES: Final = ("if-better", "always", "never")
GATE_METRICS: Final = ("macro_f1", "accuracy", "weighted_kappa")


def base_dir() -> Path:
    """Return the project's folder."""
    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd())


@dataclass(frozen=True, slots=True)
class Retraining:
    """`RETRAIN`: how often, from how many new labels on, and for how long at most.

    Raises ValueError on an impossible value.
    """

    every_days: int = 7
    min_new_labels: int = 200
    timeout_minutes: float = 180
    activate: str = "if-better"

    def __post_init__(self) -> None:
        for name, least in (("every_days", 1), ("min_new_labels", 0)):
            value = getattr(self, name)
            if not is_whole(value) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}")
        if not is_positive(self.timeout_minutes):
            raise ValueError("timeout_minutes must be a number above 0")
        if self.activate not in ACTIVATE_CHOICES:
            raise ValueError(f"activate must be one of {', '.join(ACTIVATE_CHOICES)}")


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """`TRAINING`: what is trained, from which labels, and when the result may serve.

    `model_name` is a hub id, a local folder, "embedded" or "linear". `hyperparameters` are fields
    of TrainingConfig that replace what `preset` says. `trainer` is the dotted path of a Trainer.
    Fewer than `min_rows` labelled tickets are refused. `label_weights` maps a label's provenance to
    its weight in the loss, 1 where it is left out. A new version may be worse than the active one
    by at most `gate_tolerance` of `gate_metric`. `retrain` holds fields of Retraining; None:
    nothing is trained on a schedule.
    """

    model_name: str = "distilbert-base-multilingual-cased"
    preset: str = DEFAULT_PRESET
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    trainer: str = "ticket_priority.ml.trainers.fit.fit"
    min_rows: int = 60
    label_weights: Mapping[str, float] = field(default_factory=dict)
    gate_metric: str = "macro_f1"
    gate_tolerance: float = 0.01
    retrain: Mapping[str, Any] | None = None

    @property
    def retraining(self) -> Retraining | None:
        """`retrain`, validated; raises TypeError or ValueError on unknown fields or values."""
        return None if self.retrain is None else Retraining(**self.retrain)


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """`SERVING`: how a process runs the model.

    `classifiers` maps an artifact's kind to the dotted path of its class. `threads` is CPU threads
    a process; None: the usable cores. `batch_size` is tickets a batch, `batch_tokens` padded tokens
    a forward pass. `deadline_ms` is how long the save of a ticket waits for the model, and a
    request for the answer about each text; None: without limit. After `breaker_failures` errors or
    missed deadlines in a row the circuit breaker is open for `breaker_seconds`.
    """

    classifiers: Mapping[str, str] = field(
        default_factory=lambda: {name: kind.classifier for name, kind in KINDS.items()}
    )
    threads: int | None = None
    batch_size: int = 64
    batch_tokens: int = 4096
    deadline_ms: float | None = 300
    breaker_failures: int = 5
    breaker_seconds: float = 30

    @property
    def deadline_seconds(self) -> float | None:
        """`deadline_ms` in seconds."""
        return None if self.deadline_ms is None else self.deadline_ms / 1000


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """`QUEUE`: who classifies later, and how often it is tried.

    `backend` is the dotted path of a Queue; None: the first of `queues.BACKENDS` that is installed.
    A prediction fails after `max_attempts`. A worker may keep a batch for `claim_seconds` before
    another takes it over. Every `sweep_minutes` a worker looks for pending predictions.
    """

    backend: str | None = None
    max_attempts: int = 5
    claim_seconds: int = 300
    sweep_minutes: int = 1


@dataclass(frozen=True, slots=True)
class DecisionSettings:
    """`DECISIONS`: which class is chosen, whether it is applied, and what people may decide.

    `costs` maps true class to chosen class to cost; None: the most probable class is chosen.
    `auto_apply` maps a class to the precision that its answers need to be applied; None: all are
    applied. `audit_share`, 0 to 0.5, is the share of new tickets in the audit slice. A form that
    restores the old value within `stale_form_minutes` of a late prediction, or of another person's
    decision, is assumed to have been opened before it. `override_rate` is how many decisions one
    person may make, "number/period"; None: any number.
    """

    costs: Mapping[str, Mapping[str, float]] | None = None
    auto_apply: Mapping[str, float] | None = None
    audit_share: float = 0.0
    stale_form_minutes: int = 60
    override_rate: str | None = "1000/day"

    @property
    def override_cap(self) -> Rate | None:
        """`override_rate`, parsed; raises ValueError where it cannot be read."""
        return None if self.override_rate is None else Rate.parse(self.override_rate)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """`API`: who may use the REST API, and how much.

    `max_texts` is texts a predict request. A 401 has the challenge of the first of
    `authentication_classes`. `permission_classes` guard the views that are not about a ticket.
    `throttle_rate` is "number/period" a user; None: no limit.
    """

    max_texts: int = 64
    authentication_classes: tuple[str, ...] = (
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    )
    permission_classes: tuple[str, ...] = ("rest_framework.permissions.IsAdminUser",)
    throttle_rate: str | None = "120/min"


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """`METRICS`: whether each process counts for Prometheus, and the token that a scraper sends.

    With `token` None the metrics require the permission to view predictions.
    """

    enabled: bool = False
    token: str | None = None


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """The merged settings; field names are the keys in lower case.

    With `enabled` False nothing is classified and new tickets wait. `sources` maps
    "app_label.Model" to the options of a TicketSource. `mode` is one of `MODES`. Published models
    are in `artifact_root`, training runs in `output_dir`.
    """

    enabled: bool = True
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mode: str = "sync"
    artifact_root: Path = field(default_factory=lambda: base_dir() / "ticket_priority_models")
    output_dir: Path = field(default_factory=lambda: base_dir() / "outputs")
    training: TrainingSettings = field(default_factory=TrainingSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    decisions: DecisionSettings = field(default_factory=DecisionSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)


GROUPS: Final[Mapping[str, type[Any]]] = {
    "TRAINING": TrainingSettings,
    "SERVING": ServingSettings,
    "QUEUE": QueueSettings,
    "DECISIONS": DecisionSettings,
    "API": ApiSettings,
    "METRICS": MetricsSettings,
}
"""The keys that hold a dictionary of further keys, and the class of each."""

_SHORT_FOR: Final = {"QUEUE": "BACKEND"}
"""The groups for which a plain string stands, and the key that it sets."""

_merged: PluginSettings | None = None


def get_settings() -> PluginSettings:
    """Return the project's settings merged with the defaults, without unknown keys.

    System checks report unknown keys.
    """
    global _merged
    if _merged is None:
        known = _known(PluginSettings, user_settings())
        for name in ("artifact_root", "output_dir"):
            if known.get(name) is None:
                known.pop(name, None)
            else:
                known[name] = Path(known[name])
        groups = {
            key.lower(): group(**_known(group, user_group(key))) for key, group in GROUPS.items()
        }
        _merged = PluginSettings(**known | groups)
    return _merged


def user_settings() -> Mapping[str, Any]:
    """Return the project's own dictionary, empty when it is absent or not a dictionary."""
    given = getattr(settings, SETTING, None)
    return given if isinstance(given, Mapping) else {}


def user_group(key: str) -> Mapping[str, Any]:
    """Return the project's own dictionary under a key of `GROUPS`, empty when it is not one."""
    given = expanded(key, user_settings().get(key))
    return given if isinstance(given, Mapping) else {}


def expanded(key: str, given: object) -> object:
    """Return what is set under a key of `GROUPS`, with a dictionary for a string that is short."""
    return {_SHORT_FOR[key]: given} if key in _SHORT_FOR and isinstance(given, str) else given


def setting_names(group: type[Any] = PluginSettings) -> list[str]:
    """Return the keys that a settings class knows, in capitals."""
    return [item.name.upper() for item in fields(group)]


def _known(group: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): given[name] for name in setting_names(group) if name in given}


def is_gate_tolerance(value: object) -> bool:
    """Say whether a value can be `GATE_TOLERANCE`."""
    return is_number(value) and 0 <= value < 1


def _reset(*, setting: str, **kwargs: Any) -> None:
    global _merged
    if setting in (SETTING, "BASE_DIR"):
        _merged = None


setting_changed.connect(_reset, dispatch_uid="ticket_priority.conf.reset")
