"""The one reader of `settings.TICKET_PRIORITY`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.signals import setting_changed

from ticket_priority.ml.hyperparameters.presets import DEFAULT_PRESET
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
    """The settings' `RETRAIN`: how often, from how many new labels on, and how long at most.

    Raises ValueError on an impossible value.
    """

    every_days: int = 7
    min_new_labels: int = 200
    timeout_minutes: float = 180
    activate: str = "if-better"

    def __post_init__(self) -> None:
        for name, least in (("every_days", 1), ("min_new_labels", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}")
        minutes = self.timeout_minutes
        is_number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
        if not is_number or not 0 < minutes < math.inf:
            raise ValueError("timeout_minutes must be a number above 0")
        if self.activate not in ACTIVATE_CHOICES:
            raise ValueError(f"activate must be one of {', '.join(ACTIVATE_CHOICES)}")


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """The merged settings. Field names are the keys of `TICKET_PRIORITY` in lower case.

    `classifiers` maps an artifact's kind to the class that serves it; `threads` is per process
    (None: the usable cores); `batch_tokens` is padded tokens a forward pass; `claim_seconds` is
    how long a worker may sit on a batch before another takes it over. Within
    `stale_form_minutes` of a prediction that came later than its ticket, or of another person's
    decision, a form that puts the old value back is taken for one that was opened before it.
    `training` lays fields of TrainingConfig over what `preset` says; `label_weights` maps a label's
    provenance to its weight in training, 1 where it is left out.
    A new version may be worse than the active one by `gate_tolerance` of `gate_metric` at most.
    `deadline_ms` is how long a ticket's save waits for a model, None for ever; after
    `breaker_failures` errors or deadlines in a row it isn't asked for `breaker_seconds`.
    `costs` maps true class to chosen class to cost, None for the most probable class;
    `auto_apply` maps a class to the precision from which on its answers are applied, None to apply
    all; `audit_share` is the part of the new tickets whose predictions are held back, 0 to 0.5.
    `retrain` holds the fields of `Retraining`, None for no training by the clock.
    `override_rate` is how many decisions one person may make, "number/period", None for any number.
    The first of `api_authentication_classes` names the challenge of a 401;
    `api_permission_classes` guard what is not about a ticket; `api_throttle_rate` is
    "number/period" a user, None for no limit.
    With `metrics` each process counts for Prometheus; `metrics_token` opens the page it scrapes.
    """

    enabled: bool = True
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mode: str = "sync"
    model_name: str = "distilbert-base-multilingual-cased"
    artifact_root: Path = field(default_factory=lambda: base_dir() / "ticket_priority_models")
    output_dir: Path = field(default_factory=lambda: base_dir() / "outputs")
    classifiers: Mapping[str, str] = field(
        default_factory=lambda: {
            "transformer": "ticket_priority.ml.serving.onnx.OnnxClassifier",
            "linear": "ticket_priority.ml.serving.linear.LinearClassifier",
            "ensemble": "ticket_priority.ml.serving.ensemble.EnsembleClassifier",
        }
    )
    trainer: str = "ticket_priority.ml.trainers.fit.fit"
    preset: str = DEFAULT_PRESET
    training: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    batch_size: int = 64
    batch_tokens: int = 4096
    max_attempts: int = 5
    claim_seconds: int = 300
    sweep_minutes: int = 1
    stale_form_minutes: int = 60
    min_training_rows: int = 60
    gate_metric: str = "macro_f1"
    gate_tolerance: float = 0.01
    label_weights: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, Mapping[str, float]] | None = None
    auto_apply: Mapping[str, float] | None = None
    audit_share: float = 0.0
    retrain: Mapping[str, Any] | None = None
    deadline_ms: float | None = 300
    breaker_failures: int = 5
    breaker_seconds: float = 30
    override_rate: str | None = "1000/day"
    api_max_texts: int = 64
    api_authentication_classes: tuple[str, ...] = (
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    )
    api_permission_classes: tuple[str, ...] = ("rest_framework.permissions.IsAdminUser",)
    api_throttle_rate: str | None = "120/min"
    metrics: bool = False
    metrics_token: str | None = None

    @property
    def retraining(self) -> Retraining | None:
        """The plan that `retrain` holds; raises TypeError or ValueError where it makes no sense."""
        return None if self.retrain is None else Retraining(**self.retrain)

    @property
    def override_cap(self) -> Rate | None:
        """What `override_rate` says; raises ValueError where it cannot be read."""
        return None if self.override_rate is None else Rate.parse(self.override_rate)


_merged: PluginSettings | None = None


def get_settings() -> PluginSettings:
    """Return the defaults with the project's `TICKET_PRIORITY` laid over them.

    Unknown keys are left out here; the system checks report them.
    """
    global _merged
    if _merged is None:
        given = user_settings()
        known = {name: given[name.upper()] for name in setting_names() if name.upper() in given}
        for name in ("artifact_root", "output_dir"):
            if known.get(name) is None:
                known.pop(name, None)
            else:
                known[name] = Path(known[name])
        _merged = PluginSettings(**known)
    return _merged


def user_settings() -> Mapping[str, Any]:
    """Return the project's own dictionary, empty when it is absent or not a dictionary."""
    given = getattr(settings, SETTING, None)
    return given if isinstance(given, Mapping) else {}


def setting_names() -> list[str]:
    return [item.name for item in fields(PluginSettings)]


def is_gate_tolerance(value: object) -> bool:
    """Say whether a value can be `GATE_TOLERANCE`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _reset(*, setting: str, **kwargs: Any) -> None:
    global _merged
    if setting in (SETTING, "BASE_DIR"):
        _merged = None


setting_changed.connect(_reset, dispatch_uid="ticket_priority.conf.reset")
