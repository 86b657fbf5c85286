"""Errors that become HTTP responses, with a body `{"detail": ...}`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import Error
from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.exceptions import APIException

from ticket_priority.classifiers import RETRY_SECONDS
from ticket_priority.exceptions import ModelUnavailableError, OverrideRateError
from ticket_priority.logs import redacted_traceback

logger = logging.getLogger(__name__)


class ServiceUnavailable(APIException):
    """503; `wait` seconds are sent as Retry-After."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = _(
        "No model can answer at the moment. Try again later; if this goes on, an administrator "
        "has to train or activate a model version."
    )
    default_code = "model_unavailable"
    wait: Final = int(RETRY_SECONDS)


class BodyTooLarge(APIException):
    """413; the body is larger than DATA_UPLOAD_MAX_MEMORY_SIZE."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = _("The request body is too large.")
    default_code = "body_too_large"


class TooManyDecisions(APIException):
    """429; `wait` seconds are sent as Retry-After."""

    status_code = status.HTTP_429_TOO_MANY_REQUESTS
    default_code = "too_many_decisions"

    def __init__(self, error: OverrideRateError) -> None:
        super().__init__(str(error))
        self.wait = error.wait


class PriorityRefused(APIException):
    """409; the host does not take the priority for this ticket."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "priority_refused"


@contextmanager
def model_required() -> Iterator[None]:
    """Answer 503 where no model can answer."""
    try:
        yield
    except ModelUnavailableError as error:
        logger.warning("A request could not be answered: %s", error)
        raise ServiceUnavailable from error


@contextmanager
def model_at_work() -> Iterator[None]:
    """Answer 503 whatever a model raises, and log it without the text that it was given."""
    try:
        with model_required():
            yield
    except (APIException, Error):
        raise
    except Exception as error:
        logger.error("The model failed with %s", redacted_traceback(error))
        raise ServiceUnavailable from None
