"""A classifier's answers to labelled texts, from which figures are computed. Needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.policy.rule import Costs, choose
from ticket_priority.ml.types import Classification, Classifier, LabelledText

_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Scored:
    """True and chosen class ids [n], probabilities [n, classes], groups and languages [n]."""

    labels: metrics.Labels
    chosen: metrics.Labels
    probabilities: npt.NDArray[np.float32]
    groups: Sequence[str]
    languages: Sequence[str]
    costs: Costs | None = None

    def figures(self, majority: int) -> dict[str, Any]:
        """Return every figure, and under `majority` those of always answering that class."""
        report = partial(metrics.report, self.labels, groups=self.groups, costs=self.costs)
        own = report(self.chosen, probabilities=self.probabilities, languages=self.languages)
        return {**own, "majority": report(self._always(majority))}

    def against(self, other: Scored, metric: str) -> metrics.Difference:
        """Compare with another classifier's answers to the same rows."""
        return metrics.compare(self.labels, self.chosen, other.chosen, metric, groups=self.groups)

    def against_majority(self, majority: int, metric: str) -> metrics.Difference:
        """Compare with always answering that class."""
        return metrics.compare(
            self.labels, self.chosen, self._always(majority), metric, groups=self.groups
        )

    def _always(self, label: int) -> metrics.Labels:
        return np.full(len(self.labels), label, dtype=np.int64)


def score(
    classifier: Classifier, rows: Sequence[LabelledText], costs: Costs | None = None
) -> Scored:
    """Classify rows in batches, so that few texts are in memory at once.

    With `costs` the class of least expected cost is chosen, else the most probable.
    """
    labels: list[int] = []
    groups: list[str] = []
    languages: list[str] = []
    answers: list[Classification] = []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        given = classifier.classify([row.text for row in batch])
        answers += [choose(answer, costs) for answer in given]
        labels += [row.label for row in batch]
        groups += [row.group for row in batch]
        languages += [row.language for row in batch]
    return Scored(
        labels=np.array(labels, dtype=np.int64),
        chosen=np.array([answer.priority for answer in answers], dtype=np.int64),
        probabilities=np.array([answer.probabilities for answer in answers], dtype=np.float32),
        groups=groups,
        languages=languages,
        costs=costs,
    )
