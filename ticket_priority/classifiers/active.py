"""`get_classifier()`: the classifier of the active model version, loaded once a process."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Final

from django.db import DatabaseError, router, transaction

from ticket_priority.classifiers.breaker import BreakerState
from ticket_priority.classifiers.loading import ActiveClassifier, rule_of
from ticket_priority.classifiers.slots import Load, Role, Slot, slot_for
from ticket_priority.conf import get_settings
from ticket_priority.db import needs_rollback
from ticket_priority.exceptions import ModelTimeoutError, ModelUnavailableError, SwitchedOffError
from ticket_priority.models import ModelVersion, SwitchChange

logger = logging.getLogger(__name__)

LOAD_WAIT_SECONDS: Final = 10.0
"""How long a caller without a deadline waits for another thread that loads the first model."""

_IS_SWITCHED_ON: Final = "is_switched_on"


def get_classifier(seconds: float | None = None) -> ActiveClassifier:
    """Return the classifier of the active model version, loading it at most once a process.

    While a new version loads, or when it cannot be loaded, the previous one goes on serving. With
    `seconds` the version loads in the background, and is waited for until this long after the
    start of its load. Raises ModelTimeoutError after that, SwitchedOffError, and
    ModelUnavailableError when no model is loaded or the settings make no rule.
    """
    slot = slot_for(Role.ACTIVE)
    version = _active_version()
    if getattr(version, _IS_SWITCHED_ON) is False:
        raise SwitchedOffError(
            "Classification is switched off: `manage.py switch_priority on` switches it on."
        )
    return _classifier(slot, version, seconds)


def get_classifier_in_request() -> ActiveClassifier:
    """Return it like `get_classifier()`, and wait for its loading LOAD_WAIT_SECONDS at most.

    A request that asks for an answer is more patient than a save, but must not hang.
    """
    deadline = get_settings().serving.deadline_seconds
    return get_classifier(None if deadline is None else max(deadline, LOAD_WAIT_SECONDS))


def preload(seconds: float | None = None) -> bool:
    """Load the active model where a process starts; return whether one is loaded. Never raises.

    Call it after the fork: threads do not survive one. `seconds` as in `get_classifier`.
    """
    try:
        get_classifier(seconds)
    except (ModelUnavailableError, DatabaseError) as error:
        logger.warning("No model is loaded as this process starts: %s", error)
        return False
    return True


def get_shadow_classifier(version: ModelVersion) -> ActiveClassifier:
    """Return the classifier of the shadow, which is loaded beside the active one.

    Raises ModelUnavailableError when it cannot be loaded, or failed to load a moment ago.
    """
    slot = slot_for(Role.SHADOW)
    # Another is freed before this one loads: two models in memory are enough.
    slot.release(keep=version)
    return _classifier(slot, version, None)


def release_shadow() -> None:
    """Free the shadow's memory, where this process holds one."""
    slot_for(Role.SHADOW).release()


def _classifier(slot: Slot, version: ModelVersion, seconds: float | None) -> ActiveClassifier:
    load = slot.follow(version, in_background=seconds is not None)
    known = _server_of(slot, version)
    loaded = slot.find(known)
    if load is not None and loaded is None:
        _wait_for(load, seconds)
        loaded, known = slot.find(version), version
    if (outcome := slot.take_outcome(version)) is not None:
        store_load_error(version, outcome.error)
        if not outcome.error:
            for replaced in _earlier(slot, version):
                slot.drop(replaced)
    if loaded is None:
        raise ModelUnavailableError(
            f"Model version {version.name} cannot be loaded; the log and the model version's "
            "admin page say why. Choose another with `manage.py activate_priority_model`."
        )
    # The row as it was read now: certificates may have been added since the model was loaded.
    return replace(loaded, model_version=known, rule=rule_of(known))


def _server_of(slot: Slot, version: ModelVersion) -> ModelVersion:
    """Return the version that answers: this one, or while it is not loaded, the one before."""
    earlier = [] if slot.holds(version) else _earlier(slot, version)
    return earlier[-1] if earlier else version


def _earlier(slot: Slot, version: ModelVersion) -> list[ModelVersion]:
    """Return the loaded versions that were active in this database, the newest at the end.

    What else is loaded belongs to another tenant, and must not answer for this one.
    """
    names = slot.others(version)
    if not names:
        return []
    rows = ModelVersion.objects.filter(name__in=names).exclude(activated_at=None)
    return [row for row in rows.order_by("activated_at") if slot.holds(row)]


def _wait_for(load: Load, seconds: float | None) -> None:
    if seconds is None:
        if not load.ended.wait(LOAD_WAIT_SECONDS):
            raise ModelUnavailableError("The model is still being loaded by another thread.")
    elif not load.ended.wait(max(load.begun_at + seconds - time.monotonic(), 0)):
        raise ModelTimeoutError(f"Model version {load.version.name} is still being loaded.")


def store_load_error(version: ModelVersion, error: str) -> None:
    """Store the error met while loading or running a version, empty for none, if it changed.

    Raises only what makes the transaction impossible to commit.
    """
    if version.load_error == error:
        return
    version.load_error = error
    using = router.db_for_write(ModelVersion)
    try:
        with transaction.atomic(using=using):
            rows = ModelVersion.objects.using(using).filter(pk=version.pk, name=version.name)
            rows.update(load_error=error[:2000])
    except DatabaseError:
        if needs_rollback(using):
            raise
        logger.warning("The load error of model version %s could not be stored", version.name)


def loaded_model_version() -> ModelVersion | None:
    """Return the version this process asked last, without loading or querying anything."""
    loaded = slot_for(Role.ACTIVE).loaded
    return None if loaded is None else loaded.model_version


def serving_version(active: ModelVersion) -> ModelVersion | None:
    """Return the version that would answer now for the active one; None: none is loaded."""
    slot = slot_for(Role.ACTIVE)
    found = _server_of(slot, active)
    return found if slot.holds(found) else None


def breaker_state(version: ModelVersion | None = None) -> BreakerState:
    """Return the state of a model's circuit breaker in this process, by default of the last asked.

    It is closed where that model is not loaded.
    """
    slot = slot_for(Role.ACTIVE)
    loaded = slot.loaded if version is None else slot.find(version)
    return BreakerState.CLOSED if loaded is None else loaded.breaker.state()


def find_version(name: str | None = None) -> ModelVersion:
    """Return the version of this name, else the active one; raises ModelUnavailableError."""
    if name is None:
        return _active_version()
    version = ModelVersion.objects.filter(name=name).first()
    if version is None:
        known = ", ".join(ModelVersion.objects.values_list("name", flat=True)[:10]) or "none"
        raise ModelUnavailableError(f"There is no model version {name!r}. The newest: {known}.")
    return version


def _active_version() -> ModelVersion:
    """Return the active version, and in the same query whether classification is switched on."""
    versions = ModelVersion.objects.annotate(**{_IS_SWITCHED_ON: SwitchChange.newest("is_on")})
    version: ModelVersion | None = versions.filter(is_active=True).first()
    if version is None:
        raise ModelUnavailableError(
            "No model version is active: run `manage.py train_priority_model`, or "
            "`manage.py activate_priority_model NAME`; before there are labels to train on, "
            "`manage.py activate_priority_model --starter`."
        )
    return version
