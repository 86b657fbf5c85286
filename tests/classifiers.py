"""Classifiers that go wrong, to be named in the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ticket_priority.interfaces import Classification
from ticket_priority.serving.onnx import OnnxClassifier


class FailingClassifier:
    """Loads, and then fails at every text."""

    def __init__(self, directory: Path, **options: object) -> None:
        pass

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        raise MemoryError("no memory left for the model")


class PoisonableClassifier(OnnxClassifier):
    """Serves the artefact, but fails at a batch that holds the word poison."""

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        if any("poison" in text for text in texts):
            raise RuntimeError("poisoned")
        return super().classify(texts)


class InterruptedClassifier(OnnxClassifier):
    """Serves the artefact, and lets something happen while it is busy."""

    meanwhile: ClassVar[Callable[[], Any]]

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        answers = super().classify(texts)
        type(self).meanwhile()
        return answers
