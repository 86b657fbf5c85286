"""The classifiers of this process: loaded once, following the active model version."""

from __future__ import annotations

from ticket_priority.classifiers.active import LOAD_WAIT_SECONDS as LOAD_WAIT_SECONDS
from ticket_priority.classifiers.active import breaker_state as breaker_state
from ticket_priority.classifiers.active import find_version as find_version
from ticket_priority.classifiers.active import get_classifier as get_classifier
from ticket_priority.classifiers.active import (
    get_classifier_in_request as get_classifier_in_request,
)
from ticket_priority.classifiers.active import get_shadow_classifier as get_shadow_classifier
from ticket_priority.classifiers.active import loaded_model_version as loaded_model_version
from ticket_priority.classifiers.active import preload as preload
from ticket_priority.classifiers.active import release_shadow as release_shadow
from ticket_priority.classifiers.active import serving_version as serving_version
from ticket_priority.classifiers.active import store_load_error as store_load_error
from ticket_priority.classifiers.breaker import Breaker as Breaker
from ticket_priority.classifiers.breaker import BreakerState as BreakerState
from ticket_priority.classifiers.loading import ActiveClassifier as ActiveClassifier
from ticket_priority.classifiers.loading import build as build
from ticket_priority.classifiers.loading import load as load
from ticket_priority.classifiers.loading import rule_of as rule_of
from ticket_priority.classifiers.slots import RETRY_SECONDS as RETRY_SECONDS
from ticket_priority.classifiers.slots import reset as reset
