from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.types import LabelledText


@dataclass(frozen=True, slots=True)
class Splits:
    """Texts to train on, to choose by, and to test on once. Raises TrainingError without rows."""

    train: Sequence[LabelledText]
    validation: Sequence[LabelledText]
    test: Sequence[LabelledText]

    def __post_init__(self) -> None:
        for name, size in self.sizes.items():
            if not size:
                raise TrainingError(
                    f"The {name} split is empty; training needs rows in every split."
                )

    @property
    def sizes(self) -> dict[str, int]:
        """The number of rows of each split, by its name."""
        return {name: len(getattr(self, name)) for name in ("train", "validation", "test")}
