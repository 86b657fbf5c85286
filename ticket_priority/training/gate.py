"""Whether a new model version may serve: it is useful, and no worse than the active one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from ticket_priority.classifiers import load
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

_TOO_FEW: Final = "there are too few labelled tickets to compare on"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The test split that versions are compared on; `rows` is empty where there is none.

    `split_by` is the kind of split, `majority` the most frequent class of the training split,
    `costs` what mistakes cost today.
    """

    rows: Sequence[LabelledText] = ()
    split_by: str | None = None
    majority: int = 0
    costs: Costs | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> HeldOut:
        """Return the test split of a dataset, with today's costs."""
        costs = read_costs(get_settings().decisions.costs)
        return cls(dataset.test, split_of(dataset.summary()), dataset.majority, costs)

    def score(self, classifier: Classifier) -> Scored:
        """Classify the rows, and choose classes by today's costs."""
        return score(classifier, self.rows, self.costs)

    def rewrite(self, classifier: Classifier) -> dict[str, Any]:
        """Measure how far the answers move where rows are only written differently."""
        return robustness.measure(classifier, self.rows, self.costs)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to activate, with its scores as it is served on the held-out rows.

    `scored` is None where there are no such rows. `split_by` is the kind of split that the version
    was trained with, None where that is not known.
    """

    name: str
    scored: Scored | None
    split_by: str | None


class Outcome(Enum):
    """What the gate found."""

    FIRST = auto()
    ASKED_FOR = auto()
    USEFUL = auto()
    NO_WORSE = auto()
    NOT_ASKED_FOR = auto()
    NOT_SERVABLE = auto()
    NOT_COMPARED = auto()
    NOT_COMPARABLE = auto()
    USELESS = auto()
    NO_WORSE_BUT_USELESS = auto()
    WORSE = auto()


_PASSING: Final = {Outcome.FIRST, Outcome.ASKED_FOR, Outcome.USEFUL, Outcome.NO_WORSE}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate found, and the figures that it follows from.

    `new` and `active` are names of versions; `active` is "" where none was active. `over_majority`
    and `over_active` compare the new version with the most frequent class and the active version.
    `other_split` says how the active version's tickets were split, where it may have been trained
    on part of the test. `error` is why a version cannot be run.
    """

    outcome: Outcome
    new: str
    active: str = ""
    over_majority: Difference | None = None
    over_active: Difference | None = None
    other_split: str = ""
    tolerance: float = 0.0
    error: str = ""

    @property
    def passes(self) -> bool:
        """Whether the new version may serve."""
        return self.outcome in _PASSING

    @property
    def reason(self) -> str:
        """The verdict in words."""
        new, active = self.new, self.active
        alone = f"the active version {active} cannot be run: {self.error}"
        alone = alone if active else "no version was active"
        figures, margin = _figures(self.over_active)
        figures = f"{figures} of {active}"
        majority, majority_margin = _figures(self.over_majority)
        doubt = (
            "the new version is not shown to be better than the most frequent class alone: "
            f"{majority}, {majority_margin}"
        )
        within = besides = favour = ""
        if self.over_active is not None and self.over_active.value < 0:
            within = f", which is within {self.tolerance:g}"
        if self.over_majority is not None and self.over_majority.interval[0] <= 0:
            besides = f". Besides, {doubt}"
        if self.other_split:
            favour = (
                f". Its tickets were split {self.other_split}, so it may have been trained on part "
                "of this test, which favours it"
            )
        asked = f": {_TOO_FEW}" if self.over_majority is None else f"; {alone}"
        asked = asked if self.over_active is None else f"; {figures}: {margin}"
        overrule = f". To overrule it, pass --activate=always, or run activate_priority_model {new}"
        sentences = {
            Outcome.FIRST: alone,
            Outcome.ASKED_FOR: f"activation was asked for{asked}",
            Outcome.USEFUL: f"{alone}; {majority} of the most frequent class: {majority_margin}",
            Outcome.NO_WORSE: f"{figures}: {margin}{within}",
            Outcome.NOT_ASKED_FOR: "activation was not asked for",
            Outcome.NOT_SERVABLE: f"the new version cannot be served: {self.error}",
            Outcome.NOT_COMPARED: f"{active} stays active: {_TOO_FEW}{overrule}",
            Outcome.NOT_COMPARABLE: (
                f"{active} stays active: not comparable: {active} was trained on tickets that were "
                f"split {self.other_split}{overrule}"
            ),
            Outcome.USELESS: f"{alone}, but {doubt}{overrule}",
            Outcome.NO_WORSE_BUT_USELESS: (
                f"{figures}: {margin}. {active} stays active all the same: {doubt}{overrule}"
            ),
            Outcome.WORSE: f"{figures}, which stays active: {margin}{favour}{besides}{overrule}",
        }
        return sentences[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparisons, ready for JSON; None where there was none."""
        compared = {"majority": self.over_majority, "active": self.over_active}
        return {name: found and found.as_dict() for name, found in compared.items()}


def decide(new: NewVersion, held_out: HeldOut, activate: str) -> Verdict:
    """Decide whether a new version may serve; `activate` is one of `conf.ACTIVATE_CHOICES`.

    With "if-better" it must be better than the most frequent class: the one-sided 95% lower bound
    of the difference is above 0. It must also be no worse than the active version on the same
    rows: by the figure itself, or by at most `GATE_TOLERANCE` at the lower end of the 90%
    interval. The active version is scored once.
    """
    if activate == "never":
        return Verdict(Outcome.NOT_ASKED_FOR, new.name)
    active = ModelVersion.objects.active()
    name = "" if active is None else active.name
    if new.scored is None:
        asked = Outcome.ASKED_FOR if activate == "always" else Outcome.NOT_COMPARED
        return Verdict(Outcome.FIRST if active is None else asked, new.name, name)
    metric = get_settings().training.gate_metric
    over_majority = new.scored.against_majority(held_out.majority, metric)
    if active is None:
        return Verdict(_outcome(activate, over_majority), new.name, name, over_majority)
    try:
        rival = held_out.score(load(active))
    except Exception as error:
        # Whatever a broken artifact raises, it must not keep a sound one from serving.
        logger.exception("The active version %s cannot be run", name)
        outcome = _outcome(activate, over_majority)
        return Verdict(outcome, new.name, name, over_majority, error=str(error))
    over_active = new.scored.against(rival, metric)
    way = other_split(active, held_out.split_by, new.split_by)
    if way and new.split_by != held_out.split_by and activate == "if-better":
        # Neither kept to the split of this test, so either may know more of it than the other.
        return Verdict(Outcome.NOT_COMPARABLE, new.name, name, over_majority, None, way)
    tolerance = get_settings().training.gate_tolerance
    outcome = _outcome(activate, over_majority, over_active)
    return Verdict(outcome, new.name, name, over_majority, over_active, way, tolerance)


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


def other_split(version: ModelVersion, *kinds: str | None) -> str:
    """Say how a version's tickets were split, where it was in none of these kinds; else "".

    Then it may have been trained on part of a test split of these kinds.
    """
    kind = split_of(version.dataset)
    if version.is_starter or kind in kinds:
        return ""
    return "differently" if kind in KINDS_OF_SPLIT else "in an unknown way"


def _outcome(
    activate: str, over_majority: Difference, over_active: Difference | None = None
) -> Outcome:
    """Decide by what was compared; `over_active` is None where no other version can serve."""
    if activate == "always":
        return Outcome.ASKED_FOR
    useful, tolerance = over_majority.interval[0] > 0, get_settings().training.gate_tolerance
    if over_active is None:
        return Outcome.USEFUL if useful else Outcome.USELESS
    if over_active.value < 0 and over_active.interval[0] < -tolerance:
        return Outcome.WORSE
    return Outcome.NO_WORSE if useful else Outcome.NO_WORSE_BUT_USELESS


def _figures(found: Difference | None) -> tuple[str, str]:
    """Put the two figures, and how sure their difference is, into words; empty for None."""
    if found is None:
        return "", ""
    low, high = found.interval
    return f"{found.metric} {found.figure:.3f} against {found.other:.3f}", (
        f"a difference of {found.value:+.3f} (90% interval {low:+.3f} to {high:+.3f}), worse "
        f"in {found.share_worse:.0%} of resamples"
    )
