from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ticket_priority.ml.artifacts.ensemble import EnsembleConfig
from ticket_priority.ml.artifacts.kinds import KINDS
from ticket_priority.ml.types import Classification


class EnsembleClassifier:
    """An ensemble artifact, each member on the default classifier of its kind.

    `threads` and `batch_tokens` are those of each member. Safe to share between threads; not
    across a fork. Raises ArtifactError when the artifact or a member of it is missing, corrupt or
    newer, or has other classes.
    """

    def __init__(
        self, directory: Path, *, threads: int | None = None, batch_tokens: int = 4096
    ) -> None:
        directory = Path(directory)
        self._config = EnsembleConfig.read(directory)
        self._members = [
            KINDS[member.kind].load_classifier()(
                directory / member.folder, threads=threads, batch_tokens=batch_tokens
            )
            for member in self._config.members
        ]

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify normalised texts, in their order. An empty list gives an empty list."""
        if not texts:
            return []
        answers = np.array(
            [[each.probabilities for each in member.classify(texts)] for member in self._members]
        )
        return [Classification(tuple(row)) for row in self._config.combine(answers).tolist()]
