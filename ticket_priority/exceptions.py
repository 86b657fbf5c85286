"""Named errors. Each message says what to do next."""

from __future__ import annotations


class TicketPriorityError(Exception):
    """The base of every error this package raises on purpose."""


class ArtifactError(TicketPriorityError):
    """A published artifact is missing, incomplete, altered, or too new."""


class ModelUnavailableError(TicketPriorityError):
    """There is no model to answer: none was ever activated, or it cannot be loaded."""


class SwitchedOffError(ModelUnavailableError):
    """Classification is switched off, for every process."""


class ModelTimeoutError(ModelUnavailableError):
    """The model did not answer, or was not loaded, within the deadline."""


class ModelOverloadedError(ModelUnavailableError):
    """Every thread that asks the model is stuck in an answer that is overdue."""


class BreakerOpenError(ModelUnavailableError):
    """The model failed again and again, and is left alone for a while."""


class ModelFailingError(ModelUnavailableError):
    """The model fails at every text, so no ticket is to blame."""


class ModelAnswerError(TicketPriorityError):
    """A classifier returned what is no answer: too few, too many, or no probabilities."""


class SourceError(TicketPriorityError):
    """A ticket source is described wrongly, or a model has none."""


class QueueError(TicketPriorityError):
    """The queue that the settings name cannot be used."""


class DatasetError(TicketPriorityError):
    """The labelled tickets do not make a training set."""


class TrainingError(TicketPriorityError):
    """A training run cannot start or cannot finish."""


class TrainingInProgressError(TrainingError):
    """Another training run holds the lock."""


class TrainingTimeoutError(TrainingError):
    """A training run took longer than it may."""


class EncoderUnavailableError(TrainingError):
    """The base model can be had neither from the hub, nor the cache, nor a folder."""


class CertificationError(TicketPriorityError):
    """The answers of a model version cannot be certified."""


class OverrideRateError(TicketPriorityError):
    """A person has decided as often as OVERRIDE_RATE allows, and may again in `wait` seconds."""

    def __init__(self, message: str, *, wait: int) -> None:
        super().__init__(message)
        self.wait = wait
