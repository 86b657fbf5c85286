"""From a model version to a classifier in memory, with the rule that decides on its answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from django.utils.module_loading import import_string

from ticket_priority.bounded_calls import Pool
from ticket_priority.classifiers.breaker import Breaker
from ticket_priority.conf import get_settings
from ticket_priority.exceptions import ArtifactError, ModelAnswerError, ModelUnavailableError
from ticket_priority.ml.artifacts.store import read
from ticket_priority.ml.policy.rule import DecisionRule
from ticket_priority.ml.types import Classification, Classifier, ClassifierFactory
from ticket_priority.models import ModelVersion

logger = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""How many texts a request has classified at once."""

EVERYDAY_TEXT: Final = "The printer on the second floor is out of paper."
"""A text that every working model can classify."""


@dataclass(frozen=True, slots=True)
class ActiveClassifier:
    """A loaded model, its version, and the rule that decides on its answers.

    The thread pool and the circuit breaker belong to this model alone.
    """

    model_version: ModelVersion
    classifier: Classifier
    rule: DecisionRule = field(default_factory=DecisionRule)
    pool: Pool = field(default_factory=Pool, compare=False, repr=False)
    breaker: Breaker = field(default_factory=Breaker, compare=False, repr=False)

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify normalised texts, in their order; the rule chooses the classes.

        Raises what the model raises, and ModelAnswerError where its answers are invalid.
        """
        answers = self.classifier.classify(texts)
        if len(answers) != len(texts):
            raise ModelAnswerError(f"{len(texts)} texts got {len(answers)} answers.")
        if not all(answer.is_sound for answer in answers):
            raise ModelAnswerError("An answer's probabilities are invalid.")
        return [self.rule.choose(answer) for answer in answers]

    def classify_within(self, seconds: float | None, texts: Sequence[str]) -> list[Classification]:
        """Classify like `classify()`, and wait this many seconds at most; None: without limit.

        Raises ModelTimeoutError, or ModelOverloadedError or BreakerOpenError without waiting.
        """
        with self.breaker.attempt():
            if seconds is None:
                return self.classify(texts)
            return self.pool.call(partial(self.classify, texts), seconds)

    def ask(self, texts: Sequence[str]) -> list[Classification]:
        """Classify like `classify()`, and wait DEADLINE_MS for each text at most.

        Few at a time, so that a model that hangs is soon known to. Raises ModelTimeoutError or
        ModelOverloadedError. The breaker is the caller's affair.
        """
        seconds = get_settings().serving.deadline_seconds
        if seconds is None:
            return self.classify(texts)
        answers: list[Classification] = []
        for some in (texts[at : at + AT_ONCE] for at in range(0, len(texts), AT_ONCE)):
            answers += self.pool.call(partial(self.classify, some), seconds * len(some))
        return answers

    def can_answer(self, *, bounded: bool = False) -> bool:
        """Say whether the model can classify a harmless text; if not, no ticket is the cause."""
        try:
            (self.ask if bounded else self.classify)([EVERYDAY_TEXT])
        except Exception:
            # The text is not a ticket's, so the message may be logged.
            logger.exception("Model version %s fails at every text", self.model_version.name)
            return False
        return True

    def applies(self, answer: Classification, language: str) -> bool:
        """Say whether an answer about a ticket in this language may be applied."""
        return self.rule.applies(answer, language)


def load(version: ModelVersion) -> Classifier:
    """Verify and load the artifact of a version; raises ArtifactError or ModelUnavailableError."""
    folder = get_settings().artifact_root / version.directory
    artifact = read(folder, expected_digest=version.digest)
    return build(artifact.kind, artifact.directory)


def build(kind: str, directory: Path) -> Classifier:
    """Build the classifier that the settings name for a kind of artifact."""
    serving = get_settings().serving
    path = serving.classifiers.get(kind)
    if path is None:
        raise ArtifactError(
            f"{directory} is of kind {kind!r}, for which "
            'TICKET_PRIORITY["SERVING"]["CLASSIFIERS"] names no class.'
        )
    try:
        factory: ClassifierFactory = import_string(path)
    except ImportError as error:
        raise ModelUnavailableError(f"The classifier {path} cannot be imported: {error}") from error
    return factory(directory, threads=serving.threads, batch_tokens=serving.batch_tokens)


def rule_of(version: ModelVersion) -> DecisionRule:
    """Return the rule by which the settings decide on a version's answers.

    Raises ModelUnavailableError where the settings are wrong: guessing could be costly.
    """
    decisions = get_settings().decisions
    try:
        rule = DecisionRule.of(version.metrics, costs=decisions.costs, targets=decisions.auto_apply)
    except ValueError as error:
        raise ModelUnavailableError(f"TICKET_PRIORITY: {error}.") from error
    if rule.lacks_certificates:
        _warn_uncertified(version.name)
    return rule


@lru_cache(maxsize=64)
def _warn_uncertified(name: str) -> None:
    """Warn once a process that all of a version's answers are only suggested."""
    logger.warning(
        "No answer of model version %s is certified for today's AUTO_APPLY and COSTS, so each is "
        "only suggested: run `manage.py certify_priority_model`",
        name,
    )
