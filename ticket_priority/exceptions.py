"""The errors that this package raises; each message says what to do next."""

from __future__ import annotations


class TicketPriorityError(Exception):
    """The base class of this package's errors."""


class ArtifactError(TicketPriorityError):
    """A published artifact is missing, incomplete, altered, or too new."""


class NameTakenError(ArtifactError):
    """Another artifact was published under this name."""


class ModelUnavailableError(TicketPriorityError):
    """No model can answer: none is active, or it cannot be loaded."""


class SwitchedOffError(ModelUnavailableError):
    """Classification is switched off, for every process."""


class ModelTimeoutError(ModelUnavailableError):
    """The model did not answer, or was not loaded, within the deadline."""


class ModelOverloadedError(ModelUnavailableError):
    """Every thread that runs the model is busy with an overdue call."""


class BreakerOpenError(ModelUnavailableError):
    """The model kept failing, so it is not asked for a while."""


class ModelFailingError(ModelUnavailableError):
    """The model fails at every text, so no ticket is the cause."""


class ModelAnswerError(TicketPriorityError):
    """A classifier returned too few or too many answers, or invalid probabilities."""


class SourceError(TicketPriorityError):
    """A ticket source is configured wrongly, or a model has none."""


class QueueError(TicketPriorityError):
    """The queue that the settings name cannot be used."""


class DatasetError(TicketPriorityError):
    """The labelled tickets are not sufficient for a training set."""


class TrainingError(TicketPriorityError):
    """A training run cannot start or cannot finish."""


class TrainingInProgressError(TrainingError):
    """Another training run holds the lock."""


class TrainingTimeoutError(TrainingError):
    """A training run exceeded its time limit."""


class EncoderUnavailableError(TrainingError):
    """The base model is neither on the hub, nor in the cache, nor in a folder."""


class CertificationError(TicketPriorityError):
    """The answers of a model version cannot be certified."""


class OverrideRateError(TicketPriorityError):
    """A person decided as often as OVERRIDE_RATE allows, and may again in `wait` seconds."""

    def __init__(self, message: str, *, wait: int) -> None:
        super().__init__(message)
        self.wait = wait


class PriorityRefusedError(TicketPriorityError):
    """The host does not take the priority for the ticket that a person chose it for."""
