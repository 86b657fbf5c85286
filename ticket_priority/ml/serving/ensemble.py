"""Runs an ensemble artifact: each of its models answers, and their answers are averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.artifacts import transformer as transformer_config
from ticket_priority.ml.artifacts.ensemble import EnsembleConfig
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.serving.onnx import OnnxClassifier
from ticket_priority.ml.types import Classification, Classifier

_CLASSIFIERS: Final[dict[str, Callable[..., Classifier]]] = {
    transformer_config.KIND: OnnxClassifier,
    linear_config.KIND: LinearClassifier,
}


class EnsembleClassifier:
    """An ensemble artifact, without torch.

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
            _CLASSIFIERS[member.kind](
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
