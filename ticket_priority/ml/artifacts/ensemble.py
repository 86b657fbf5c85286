"""config.json of an ensemble: several models in one artifact, whose answers are averaged.

Each member is in a folder of its own, with the files of an artifact of its kind but for the
metrics and the manifest. Needs numpy.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.artifacts.kinds import KINDS
from ticket_priority.ml.artifacts.reading import read_config, write_config
from ticket_priority.ml.numbers import is_positive

KIND: Final = "ensemble"


@dataclass(frozen=True, slots=True)
class Member:
    """A model of the ensemble: its folder in the artifact, its kind, its weight in the mean."""

    folder: str
    kind: str
    weight: float


@dataclass(frozen=True, slots=True)
class EnsembleConfig:
    """How an ensemble turns its members' probabilities into its own.

    They are averaged by the members' weights, and the logarithms of the means are divided by
    `temperature` before the softmax.
    """

    members: tuple[Member, ...]
    temperature: float = 1.0

    @classmethod
    def read(cls, directory: Path) -> EnsembleConfig:
        """Read and check `directory`/config.json. Raises ArtifactError saying what to do."""
        values = read_config(directory, KIND, _problem)
        members = (
            Member(one["folder"], one["kind"], float(one["weight"])) for one in values["members"]
        )
        return cls(tuple(members), float(values["temperature"]))

    def combine(self, probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return [rows, classes] for the members' own [members, rows, classes]."""
        weights = np.array([member.weight for member in self.members])
        answers = np.asarray(probabilities, np.float64)
        powers = np.tensordot(weights / weights.sum(), answers, axes=1) ** (1 / self.temperature)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def write(self, directory: Path) -> None:
        """Write config.json into `directory`."""
        members = [asdict(member) for member in self.members]
        write_config(directory, KIND, {"temperature": self.temperature, "members": members})


def _problem(values: dict[str, Any]) -> str:
    """Say what is wrong, or nothing."""
    members = values.get("members")
    kinds = [name for name in KINDS if name != KIND]
    if not isinstance(members, list) or not members:
        return f"members is {members!r}, not a list of models"
    for member in members:
        if not isinstance(member, dict):
            return f"a member is {member!r}, not an object"
        # A path could leave the artifact, whose files are verified.
        folder = member.get("folder")
        if not isinstance(folder, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", folder):
            return f"a member's folder is {folder!r}, not a name"
        if (kind := member.get("kind")) not in kinds:
            return f"a member's kind is {kind!r}, not {' or '.join(kinds)}"
        if not is_positive(weight := member.get("weight")):
            return f"a member's weight is {weight!r}, not a positive number"
    if not is_positive(temperature := values.get("temperature")):
        return f"temperature is {temperature!r}, not a positive number"
    return ""
