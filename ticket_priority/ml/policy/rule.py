"""From probabilities to a decision: the chosen class, and whether the answer is applied.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import mul
from typing import Any, Final, Self

from ticket_priority.ml.numbers import is_number
from ticket_priority.ml.types import CLASS_NAMES, Classification

METRICS_KEY: Final = "certification"
"""Where a model version's metrics hold what `Certification.as_dict` wrote."""

Costs = tuple[tuple[float, float, float], ...]
"""The cost of a choice: a row for each true class, a column for each chosen one, by class id."""


def read_costs(given: Any) -> Costs | None:
    """Read the setting COSTS; None stays None. Raises ValueError with what is wrong."""
    if given is None:
        return None
    _check_names(given)
    rows = []
    for true in CLASS_NAMES:
        row = given.get(true)
        if not isinstance(row, Mapping):
            raise ValueError(f"it has no dictionary for tickets that are {true}")
        _check_names(row)
        low, medium, high = (_cost(row, true, chosen) for chosen in CLASS_NAMES)
        rows.append((low, medium, high))
    return tuple(rows)


def _check_names(given: Any) -> None:
    if not isinstance(given, Mapping):
        raise ValueError("it is no dictionary")
    if unknown := [name for name in given if name not in CLASS_NAMES]:
        raise ValueError(f"there is no class {unknown[0]!r}")


def _cost(row: Mapping[str, Any], true: str, chosen: str) -> float:
    if true == chosen:
        if row.get(true, 0) != 0:
            raise ValueError(f"choosing {true} where {true} is right must cost 0")
        return 0.0
    if chosen not in row:
        raise ValueError(f"it lacks the cost of choosing {chosen} for what is {true}")
    if not is_number(cost := row[chosen]) or not 0 <= cost < math.inf:
        raise ValueError(f"the cost of choosing {chosen} for what is {true} is {cost!r}")
    return float(cost)


def read_targets(given: Any) -> dict[str, float] | None:
    """Read the setting AUTO_APPLY: class names to precisions; None stays None.

    Raises ValueError with what is wrong.
    """
    if given is None:
        return None
    _check_names(given)
    for name, target in given.items():
        if not is_number(target) or not 0 < target < 1:
            raise ValueError(f"the precision of {name} is {target!r}, not between 0 and 1")
    return {name: float(given[name]) for name in CLASS_NAMES if name in given}


def choose(answer: Classification, costs: Costs | None) -> Classification:
    """Return the answer with the class of least expected cost chosen; without costs, as it is.

    On a tie the higher priority is chosen.
    """
    if costs is None:
        return answer
    expected = [
        math.fsum(map(mul, answer.probabilities, column)) for column in zip(*costs, strict=True)
    ]
    least = min(expected)
    # A difference by rounding alone is a tie.
    chosen = max(i for i, cost in enumerate(expected) if math.isclose(cost, least, rel_tol=1e-9))
    return replace(answer, chosen=chosen)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The precision on held-out tickets of the answers of one class in one language.

    `priority` is a class name. `language` is "" for all languages without a certificate of their
    own; `languages` names those that were seen. `rows` is how many test tickets the `threshold`
    covers, `coverage` their share of those of this class and language, `precision` the share of
    them that is right, `lower_bound` its lower bound at 95% confidence. `reason` says why the
    certificate does not hold.
    """

    priority: str
    language: str
    languages: tuple[str, ...]
    target: float
    threshold: float | None
    rows: int
    precision: float | None
    lower_bound: float | None
    coverage: float
    holds: bool
    reason: str = ""

    def is_about(self, priority: str, language: str) -> bool:
        """Say whether it is for answers of this class and language."""
        return self.priority == priority and language in self.languages

    def covers(self, confidence: float) -> bool:
        """Say whether an answer of this confidence may be applied."""
        return self.holds and self.threshold is not None and confidence >= self.threshold


@dataclass(frozen=True, slots=True)
class Certification:
    """The certificates of a model version, and the settings that they were made for."""

    targets: Mapping[str, float]
    costs: Costs | None
    certificates: tuple[Certificate, ...] = ()

    @classmethod
    def read(cls, metrics: Any) -> Self | None:
        """Read what a model version's metrics hold; None where they hold none, or odd values."""
        stored: Any = metrics.get(METRICS_KEY) if isinstance(metrics, Mapping) else None
        try:
            targets, costs = read_targets(stored["targets"]), read_costs(stored["costs"])
            rows = tuple(
                Certificate(**{**row, "languages": tuple(row["languages"])})
                for row in stored["certificates"]
            )
        except (TypeError, KeyError, ValueError):
            return None
        return None if targets is None else cls(targets, costs, rows)

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "targets": dict(self.targets),
            "costs": self.costs and dict(zip(CLASS_NAMES, map(_named, self.costs), strict=True)),
            "certificates": [
                {**asdict(row), "languages": list(row.languages)} for row in self.certificates
            ],
        }

    def is_for(self, targets: Mapping[str, float], costs: Costs | None) -> bool:
        """Say whether it was made for these settings."""
        return self.targets == targets and self.costs == costs

    @property
    def holding(self) -> list[Certificate]:
        """The certificates that hold."""
        return [row for row in self.certificates if row.holds]

    def covers(self, answer: Classification, language: str) -> bool:
        """Say whether an answer about a ticket of this language may be applied."""
        return any(
            row.is_about(answer.label, language) and row.covers(answer.confidence)
            for row in self.certificates
        )


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """How the settings decide on a model version's answers.

    `targets` None: every answer is applied. Else those that `certification` covers; None: none.
    """

    costs: Costs | None = None
    targets: Mapping[str, float] | None = None
    certification: Certification | None = None

    @classmethod
    def of(cls, metrics: Any, *, costs: Any, targets: Any) -> Self:
        """Read the settings COSTS and AUTO_APPLY, and a model version's metrics.

        Certificates for other settings are ignored. Raises ValueError naming the
        setting that is wrong.
        """
        setting = "COSTS"
        try:
            found_costs = read_costs(costs)
            setting = "AUTO_APPLY"
            found_targets = read_targets(targets)
        except ValueError as error:
            raise ValueError(f"{setting} is wrong: {error}") from error
        if found_targets is None:
            return cls(found_costs)
        certification = Certification.read(metrics)
        if certification is not None and not certification.is_for(found_targets, found_costs):
            certification = None
        return cls(found_costs, found_targets, certification)

    @property
    def lacks_certificates(self) -> bool:
        """Whether precisions are required, but none has been certified."""
        return self.targets is not None and self.certification is None

    def choose(self, answer: Classification) -> Classification:
        """Return the answer with its class chosen by the costs, where there are any."""
        return choose(answer, self.costs)

    def applies(self, answer: Classification, language: str) -> bool:
        """Say whether an answer about a ticket of this language may be applied."""
        if self.targets is None:
            return True
        return self.certification is not None and self.certification.covers(answer, language)


def _named(row: Sequence[float]) -> dict[str, float]:
    return dict(zip(CLASS_NAMES, row, strict=True))
