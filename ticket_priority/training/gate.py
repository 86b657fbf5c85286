"""Whether a new model version may serve: shown to be of use, and no worse than what serves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ticket_priority import classifiers
from ticket_priority.conf import GATE_METRICS, get_settings, is_gate_tolerance
from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.data.splits import KINDS_OF_SPLIT
from ticket_priority.ml.evaluation import robustness
from ticket_priority.ml.evaluation.metrics import Difference
from ticket_priority.ml.evaluation.scoring import Scored, score
from ticket_priority.ml.policy.rule import Costs, read_costs
from ticket_priority.ml.types import Classifier, LabelledText
from ticket_priority.models import ModelVersion
from ticket_priority.training.dataset import Dataset, split_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The test split that versions are compared on; `rows` is empty where there is none.

    `split_by` is the kind of split it comes from, `majority` the most frequent class to train on,
    `costs` what mistakes cost today.
    """

    rows: Sequence[LabelledText] = ()
    split_by: str | None = None
    majority: int = 0
    costs: Costs | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> HeldOut:
        costs = read_costs(get_settings().decisions.costs)
        return cls(dataset.test, split_of(dataset.summary()), dataset.majority, costs)

    def score(self, classifier: Classifier) -> Scored:
        """Let a classifier answer the rows, and choose as answers are chosen today."""
        return score(classifier, self.rows, self.costs)

    def rewrite(self, classifier: Classifier) -> dict[str, Any]:
        """Measure how far its answers move where rows are only written in another manner."""
        return robustness.measure(classifier, self.rows, self.costs)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that asks to serve, scored as it is served on the held-out rows.

    `scored` is None where there are no such rows, `split_by` the kind of split of the tickets that
    it was trained on, None where that is not known.
    """

    name: str
    scored: Scored | None
    split_by: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate may serve, and why.

    `over_majority` and `over_active` say by how much it beats the most frequent class and the
    active version, where they were compared on the same rows.
    """

    passes: bool
    reason: str
    over_majority: Difference | None = None
    over_active: Difference | None = None

    @property
    def compared_with(self) -> float | None:
        """The active version's figure."""
        return None if self.over_active is None else self.over_active.other

    def as_dict(self) -> dict[str, Any]:
        """Return the comparisons, ready for JSON; None where there was none."""
        compared = {"majority": self.over_majority, "active": self.over_active}
        return {
            name: None if difference is None else difference.as_dict()
            for name, difference in compared.items()
        }


def decide(candidate: Candidate, held_out: HeldOut, activate: str) -> Decision:
    """Decide whether a candidate may serve; `activate` is one of `conf.ACTIVATE_CHOICES`.

    With "if-better" it must be better than the most frequent class alone, surely: the one-sided
    95% lower bound of the difference is above 0. And it must be no worse than the active version
    on the same rows: by the figure itself, or by at most `GATE_TOLERANCE` at the lower end of the
    90% interval. The active version is scored once.
    """
    if activate == "never":
        return Decision(False, "activation was not asked for")
    active = ModelVersion.objects.active()
    if candidate.scored is None:
        return _decide_blindly(candidate, active, activate)
    metric = get_settings().training.gate_metric
    over_majority = candidate.scored.against_majority(held_out.majority, metric)
    if active is None:
        return _decide_alone(candidate, over_majority, "no version was active", activate)
    try:
        rival = held_out.score(classifiers.load(active))
    except Exception as error:
        # Whatever a broken artifact raises, it must not keep a sound one from serving.
        logger.exception("The active version %s cannot be run", active.name)
        news = f"the active version {active.name} cannot be run: {error}"
        return _decide_alone(candidate, over_majority, news, activate)
    over_active = candidate.scored.against(rival, metric)
    return _decide_between(candidate, active, held_out, over_majority, over_active, activate)


def check_gate_settings() -> None:
    """Raise TrainingError where a setting that decides is wrong."""
    options = get_settings()
    training = options.training
    if training.gate_metric not in GATE_METRICS:
        raise TrainingError(
            f'TICKET_PRIORITY["TRAINING"]["GATE_METRIC"] is {training.gate_metric!r}; '
            f"choose {' or '.join(GATE_METRICS)}."
        )
    if not is_gate_tolerance(training.gate_tolerance):
        raise TrainingError(
            f'TICKET_PRIORITY["TRAINING"]["GATE_TOLERANCE"] is {training.gate_tolerance!r}; give a '
            "number of at least 0 and below 1."
        )
    try:
        read_costs(options.decisions.costs)
    except ValueError as error:
        raise TrainingError(f'TICKET_PRIORITY["DECISIONS"]["COSTS"] is wrong: {error}.') from error


def may_know_test(version: ModelVersion, *kinds: str | None) -> bool:
    """Say whether a version may have been trained on part of a test split.

    So it may where its own tickets were split in none of these kinds, or nobody knows how.
    """
    return not version.is_starter and split_of(version.dataset) not in kinds


def way_of_split(version: ModelVersion) -> str:
    """Say how a version's tickets were split, where it was not as today's are."""
    known = split_of(version.dataset) in KINDS_OF_SPLIT
    return "differently" if known else "in an unknown way"


def _decide_blindly(candidate: Candidate, active: ModelVersion | None, activate: str) -> Decision:
    if active is None:
        return Decision(True, "no version was active")
    why = "there are too few labelled tickets to compare on"
    if activate == "always":
        return Decision(True, f"activation was asked for: {why}")
    return Decision(False, f"{active.name} stays active: {why}. {_overruling(candidate)}")


def _decide_alone(
    candidate: Candidate, over_majority: Difference, news: str, activate: str
) -> Decision:
    """Decide where no other version can serve."""
    if activate == "always":
        return Decision(True, f"activation was asked for; {news}", over_majority)
    if not _is_of_use(over_majority):
        reason = f"{news}, but {_doubt(over_majority)}. {_overruling(candidate)}"
        return Decision(False, reason, over_majority)
    figures = f"{_figures(over_majority)} of the most frequent class"
    return Decision(True, f"{news}; {figures}: {_margin(over_majority)}", over_majority)


def _decide_between(
    candidate: Candidate,
    active: ModelVersion,
    held_out: HeldOut,
    over_majority: Difference,
    over_active: Difference,
    activate: str,
) -> Decision:
    knows_test = may_know_test(active, held_out.split_by, candidate.split_by)
    if knows_test and candidate.split_by != held_out.split_by and activate == "if-better":
        # Neither kept to the split of this test, so either may know more of it than the other.
        why = f"not comparable: {active.name} was trained on tickets that were split "
        why += f"{way_of_split(active)}. {_overruling(candidate)}"
        return Decision(False, f"{active.name} stays active: {why}", over_majority)
    figures = f"{_figures(over_active)} of {active.name}"
    margin = _margin(over_active)
    if activate == "always":
        reason = f"activation was asked for; {figures}: {margin}"
        return Decision(True, reason, over_majority, over_active)
    tolerance = get_settings().training.gate_tolerance
    is_of_use = _is_of_use(over_majority)
    if over_active.value >= 0 or over_active.interval[0] >= -tolerance:
        if is_of_use:
            remark = "" if over_active.value >= 0 else f", which is within {tolerance:g}"
            reason = f"{figures}: {margin}{remark}"
            return Decision(True, reason, over_majority, over_active)
        reason = f"{figures}: {margin}. {active.name} stays active all the same: "
        reason += _doubt(over_majority)
    else:
        reason = f"{figures}, which stays active: {margin}"
        if knows_test:
            reason += (
                f". Its tickets were split {way_of_split(active)}, so it may have been trained on "
                "part of this test, which favours it"
            )
        if not is_of_use:
            reason += f". Besides, {_doubt(over_majority)}"
    return Decision(False, f"{reason}. {_overruling(candidate)}", over_majority, over_active)


def _is_of_use(over_majority: Difference) -> bool:
    return over_majority.interval[0] > 0


def _doubt(over_majority: Difference) -> str:
    return (
        "the new version is not shown to be better than the most frequent class alone: "
        f"{_figures(over_majority)}, {_margin(over_majority)}"
    )


def _figures(difference: Difference) -> str:
    return f"{difference.metric} {difference.figure:.3f} against {difference.other:.3f}"


def _margin(difference: Difference) -> str:
    low, high = difference.interval
    return (
        f"a difference of {difference.value:+.3f} (90% interval {low:+.3f} to {high:+.3f}), worse "
        f"in {difference.share_worse:.0%} of resamples"
    )


def _overruling(candidate: Candidate) -> str:
    return (
        f"To overrule it, pass --activate=always, or run activate_priority_model {candidate.name}"
    )
