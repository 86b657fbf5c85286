"""`get_classifier()`: one loaded model a process, following the active model version."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from django.db import DatabaseError, router, transaction
from django.utils.module_loading import import_string

from ticket_priority.bounded_calls import Call, Pool
from ticket_priority.classifiers.breaker import Breaker, BreakerState
from ticket_priority.conf import get_settings
from ticket_priority.db import needs_rollback
from ticket_priority.exceptions import (
    ArtifactError,
    ModelAnswerError,
    ModelTimeoutError,
    ModelUnavailableError,
    SwitchedOffError,
)
from ticket_priority.ml.artifacts import store as artifacts
from ticket_priority.ml.policy.rule import DecisionRule
from ticket_priority.ml.types import Classification, Classifier, ClassifierFactory
from ticket_priority.models import ModelVersion, SwitchChange

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 30.0
"""How long a version that could not be loaded is left alone."""

LOAD_WAIT_SECONDS: Final = 10.0
"""How long a caller waits for another thread that is loading the first model."""

_ACTIVE: Final = "active"
_SHADOW: Final = "shadow"
_IS_SWITCHED_ON: Final = "is_switched_on"

_FORKED: Final = (
    "The parent of this process had loaded %s, which cannot be used here and stays in memory: load "
    "it after the fork, with ticket_priority.preload() in gunicorn's post_worker_init"
)

EVERYDAY_TEXT: Final = "The printer on the second floor is out of paper."
"""What every model has an answer to."""


@dataclass(frozen=True, slots=True)
class ActiveClassifier:
    """A loaded model, the version it is, and the rule by which its answers are decided.

    The threads that are stuck in a model that hangs, and the breaker, are that model's own.
    """

    model_version: ModelVersion
    classifier: Classifier
    rule: DecisionRule = field(default_factory=DecisionRule)
    pool: Pool = field(default_factory=Pool, compare=False, repr=False)
    breaker: Breaker = field(default_factory=Breaker, compare=False, repr=False)

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify normalised texts, in their order; the chosen classes follow the rule.

        Raises what the model raises, and ModelAnswerError where it returns no answers.
        """
        answers = self.classifier.classify(texts)
        if len(answers) != len(texts):
            raise ModelAnswerError(f"{len(texts)} texts were given {len(answers)} answers.")
        if not all(answer.is_sound for answer in answers):
            raise ModelAnswerError("The probabilities of an answer are no probabilities.")
        return [self.rule.choose(answer) for answer in answers]

    def classify_within(self, seconds: float | None, texts: Sequence[str]) -> list[Classification]:
        """Classify as `classify()` does, and wait so many seconds at most; None: for ever.

        Raises ModelTimeoutError, or ModelOverloadedError or BreakerOpenError without waiting.
        """
        with self.breaker.attempt():
            if seconds is None:
                return self.classify(texts)
            return self.pool.call(partial(self.classify, texts), seconds)

    def can_answer(self) -> bool:
        """Say whether the model answers an everyday text; where not, no ticket is to blame."""
        try:
            self.classify([EVERYDAY_TEXT])
        except Exception:
            # That text is nobody's, so the message may be read.
            logger.exception("Model version %s fails at every text", self.model_version.name)
            return False
        return True

    def applies(self, answer: Classification, language: str) -> bool:
        """Say whether an answer about a ticket of this language may apply itself."""
        return self.rule.applies(answer, language)


class _Slot:
    """What one process has loaded. Forked children start with an empty one."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.loaded: ActiveClassifier | None = None
        self.failed_pk: int | None = None
        self.failed_at = 0.0
        self.loader = Pool(threads=1)
        self.loading: Call[None] | None = None
        self.news: _Attempt | None = None

    def serves(self, version: ModelVersion) -> bool:
        return self.loaded is not None and self.loaded.model_version.pk == version.pk

    def recently_failed(self, version: ModelVersion) -> bool:
        return self.failed_pk == version.pk and time.monotonic() - self.failed_at < RETRY_SECONDS


_slots: dict[str, _Slot] = {}
_inherited: list[_Slot] = []


def get_classifier() -> ActiveClassifier:
    """Return the classifier of the active model version, loading it at most once a process.

    While a new version loads, or when it cannot be loaded, the one loaded before goes on serving.
    Raises ModelUnavailableError when there is none, or no rule by which to decide, and
    SwitchedOffError.
    """
    slot = _current_slot(_ACTIVE)
    version = _wanted_version()
    _follow(slot, version, _active_version)
    return _serving(slot, version)


def preload() -> bool:
    """Load the active model where a process starts; return whether one is loaded. Never raises.

    Call it after the fork: threads do not survive one.
    """
    try:
        get_classifier()
    except (ModelUnavailableError, DatabaseError) as error:
        logger.warning("No model is loaded as this process starts: %s", error)
        return False
    return True


def get_classifier_within(seconds: float | None) -> ActiveClassifier:
    """Return what `get_classifier()` does, and wait for it to load so many seconds at most.

    It goes on loading in the background, and meanwhile the one loaded before serves. None waits
    for ever. Raises ModelTimeoutError too.
    """
    if seconds is None:
        return get_classifier()
    slot = _current_slot(_ACTIVE)
    version = _wanted_version()
    if not slot.serves(version) and not slot.recently_failed(version):
        loading = _load_in_background(slot, version, seconds)
        if slot.loaded is None:
            if loading.is_overdue:
                raise ModelTimeoutError(f"Model version {version.name} is still being loaded.")
            loading.wait()
    # What the background found out is written down here: it has no connection of its own.
    news, slot.news = slot.news, None
    _note(news)
    return _serving(slot, version)


def _serving(slot: _Slot, version: ModelVersion) -> ActiveClassifier:
    loaded = slot.loaded
    if loaded is None:
        raise ModelUnavailableError(
            f"Model version {version.name} cannot be loaded; the log and the model version's "
            "admin page say why. Activate another with `manage.py activate_priority_model NAME`."
        )
    return _decided_by(loaded, version)


def _decided_by(loaded: ActiveClassifier, version: ModelVersion) -> ActiveClassifier:
    """Give a loaded model today's rule, and its row as it was read now, if `version` is that.

    Certificates may have been added since the model was loaded.
    """
    known = version if loaded.model_version.pk == version.pk else loaded.model_version
    return replace(loaded, model_version=known, rule=rule_of(known))


def _load_in_background(slot: _Slot, version: ModelVersion, seconds: float) -> Call[None]:
    """Return the call that loads the model, begun now unless one is going on."""

    def load_version() -> None:
        with slot.lock:
            slot.news = _load_into(slot, version) or slot.news

    loading = slot.loading
    if loading is None or loading.is_done:
        loading = slot.loading = slot.loader.submit(load_version, seconds)
    return loading


def rule_of(version: ModelVersion) -> DecisionRule:
    """Return the rule by which the settings decide on a version's answers.

    Raises ModelUnavailableError where they are wrong: a guess could be dearer than to wait.
    """
    options = get_settings()
    try:
        rule = DecisionRule.of(
            version.metrics, costs=options.decisions.costs, targets=options.decisions.auto_apply
        )
    except ValueError as error:
        raise ModelUnavailableError(
            f"No answer is decided on: TICKET_PRIORITY, {error}."
        ) from error
    if rule.lacks_certificates:
        _warn_uncertified(version.name)
    return rule


@lru_cache(maxsize=64)
def _warn_uncertified(name: str) -> None:
    """Say once a process that a version's answers are only suggested."""
    logger.warning(
        "No answer of model version %s is certified for today's AUTO_APPLY and COSTS, so each is "
        "only suggested: run `manage.py certify_priority_model`",
        name,
    )


def get_shadow_classifier(version: ModelVersion) -> ActiveClassifier:
    """Return the classifier of the shadow, beside the active one and never in its place.

    Raises ModelUnavailableError when it cannot be loaded, and again without trying for a while.
    """
    slot = _current_slot(_SHADOW)
    if slot.loaded is not None and slot.loaded.model_version.pk != version.pk:
        # No use any more, and two models in memory are enough.
        slot.loaded = None
    _follow(slot, version, lambda: version)
    if slot.loaded is None:
        raise ModelUnavailableError(f"The shadow {version.name} cannot be loaded; the log says why")
    return _decided_by(slot.loaded, version)


def release_shadow() -> None:
    """Give the shadow's memory back, where this process holds one."""
    _current_slot(_SHADOW).loaded = None


def _follow(slot: _Slot, version: ModelVersion, newest: Callable[[], ModelVersion]) -> None:
    """Load a version into its slot, unless it is there, or failed a moment ago."""
    if slot.serves(version) or slot.recently_failed(version):
        return
    if slot.lock.acquire(timeout=LOAD_WAIT_SECONDS if slot.loaded is None else 0):
        try:
            attempt = _load_into(slot, newest())
        finally:
            slot.lock.release()
        _note(attempt)
    elif slot.loaded is None:
        raise ModelUnavailableError("The model is still being loaded by another thread.")


def loaded_model_version() -> ModelVersion | None:
    """Return the version this process has in memory, without loading or querying anything."""
    loaded = _current_slot(_ACTIVE).loaded
    return None if loaded is None else loaded.model_version


def breaker_state() -> BreakerState:
    """Return the state of the loaded model's circuit breaker in this process."""
    loaded = _current_slot(_ACTIVE).loaded
    return BreakerState.CLOSED if loaded is None else loaded.breaker.state()


def reset() -> None:
    """Forget what this process has loaded."""
    _slots.clear()


def load(version: ModelVersion) -> Classifier:
    """Verify and load the artifact of a version; raises ArtifactError or ModelUnavailableError."""
    folder = get_settings().artifact_root / version.directory
    artifact = artifacts.read(folder, expected_digest=version.digest)
    return build(artifact.kind, artifact.directory)


def build(kind: str, directory: Path) -> Classifier:
    """Build the classifier that the settings name for a kind of artifact."""
    options = get_settings()
    path = options.serving.classifiers.get(kind)
    if path is None:
        raise ArtifactError(
            f"{directory} is of kind {kind!r}, for which "
            'TICKET_PRIORITY["SERVING"]["CLASSIFIERS"] names no class.'
        )
    try:
        factory: ClassifierFactory = import_string(path)
    except ImportError as error:
        raise ModelUnavailableError(f"The classifier {path} cannot be imported: {error}") from error
    return factory(
        directory, threads=options.serving.threads, batch_tokens=options.serving.batch_tokens
    )


def find_version(name: str | None = None) -> ModelVersion:
    """Return the version of this name, else the active one; raises ModelUnavailableError."""
    if name is None:
        return _active_version()
    version = ModelVersion.objects.filter(name=name).first()
    if version is None:
        known = ", ".join(ModelVersion.objects.values_list("name", flat=True)[:10]) or "none"
        raise ModelUnavailableError(f"There is no model version {name!r}. The newest: {known}.")
    return version


def _current_slot(role: str) -> _Slot:
    slot = _slots.get(role)
    if slot is not None and slot.pid == os.getpid():
        return slot
    if slot is not None:
        # Kept, never used: to destroy a session whose threads a fork left behind is to hang.
        _inherited.append(slot)
        if slot.loaded is not None:
            logger.warning(_FORKED, slot.loaded.model_version.name)
        _slots[role] = _Slot()
    return _slots.setdefault(role, _Slot())


def _wanted_version() -> ModelVersion:
    """Return the active version; raises SwitchedOffError. Both are one query."""
    version = _active_version()
    if getattr(version, _IS_SWITCHED_ON) is False:
        raise SwitchedOffError(
            "Classification is switched off: `manage.py switch_priority on` switches it on."
        )
    return version


def _active_version() -> ModelVersion:
    versions = ModelVersion.objects.annotate(**{_IS_SWITCHED_ON: SwitchChange.newest("is_on")})
    version: ModelVersion | None = versions.filter(is_active=True).first()
    if version is None:
        raise ModelUnavailableError(
            "No model version is active: run `manage.py train_priority_model`, or "
            "`manage.py activate_priority_model NAME`; before there are labels to train on, "
            "`manage.py activate_priority_model --starter`."
        )
    return version


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How loading a version went; `error` is empty when it went well."""

    version: ModelVersion
    error: str


def _load_into(slot: _Slot, version: ModelVersion) -> _Attempt | None:
    """Load a version, unless that was done or failed a moment ago. Queries nothing."""
    if slot.serves(version) or slot.recently_failed(version):
        return None
    try:
        slot.loaded = ActiveClassifier(version, load(version), breaker=Breaker(version.name))
    except Exception as error:
        # Whatever a broken artifact raises, the version before it must go on serving.
        logger.exception("Model version %s cannot be loaded", version.name)
        slot.failed_pk, slot.failed_at = version.pk, time.monotonic()
        return _Attempt(version, str(error) or repr(error))
    slot.failed_pk = None
    return _Attempt(version, "")


def _note(attempt: _Attempt | None) -> None:
    if attempt is not None:
        note_error(attempt.version, attempt.error)


def note_error(version: ModelVersion, error: str) -> None:
    """Write down how loading or running a version went, where that is news.

    An empty `error` says that it went well. Raises only what loses the transaction.
    """
    if version.load_error == error:
        return
    version.load_error = error
    using = router.db_for_write(ModelVersion)
    try:
        with transaction.atomic(using=using):
            ModelVersion.objects.using(using).filter(pk=version.pk).update(load_error=error[:2000])
    except DatabaseError:
        if needs_rollback(using):
            raise
        logger.warning("How %s went could not be stored", version.name)
