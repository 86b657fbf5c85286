"""Classifiers that go wrong, or are known to be right, to be named in the settings."""

from __future__ import annotations

import random
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


class KnownClassifier:
    """Draws the probabilities of a text from the text itself, so that a test knows them too."""

    def __init__(self, directory: Path | None = None, **options: object) -> None:
        pass

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        return [Classification(known_probabilities(text)) for text in texts]


def known_probabilities(text: str) -> tuple[float, ...]:
    draw = random.Random(text)  # noqa: S311
    weights = [draw.random() ** 4 for _ in range(3)]
    return tuple(weight / sum(weights) for weight in weights)


def known_text(chance: random.Random) -> str:
    """Return a text that is no near-copy of another."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(chance.choices(letters, k=6)) for _ in range(8))
