"""Classifiers that go wrong, or are known to be right, to be named in the settings."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

from ticket_priority.ml.serving.onnx import OnnxClassifier
from ticket_priority.ml.types import Classification


class FailingClassifier:
    """Loads, and then fails at every text."""

    def __init__(self, directory: Path, **options: object) -> None:
        pass

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        raise MemoryError("no memory left for the model")


class PoisonableClassifier(OnnxClassifier):
    """Serves the artifact, but fails at a batch that holds the word poison."""

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        if any("poison" in text for text in texts):
            raise RuntimeError("poisoned")
        return super().classify(texts)


class InterruptedClassifier(OnnxClassifier):
    """Serves the artifact, and lets something happen while it is busy."""

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


class FaultyClassifier:
    """Does what `fault` says with every batch; without one it answers "high"."""

    fault: ClassVar[Callable[[Sequence[str]], Any] | None] = None
    calls: ClassVar[int] = 0

    def __init__(self, directory: Path, **options: object) -> None:
        pass

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        type(self).calls += 1
        fault = type(self).fault
        answers = None if fault is None else fault(texts)
        return [sure_answer() for _ in texts] if answers is None else answers


class SlowToLoadClassifier(FaultyClassifier):
    """Takes its time to load: until `may_load` is set."""

    may_load: ClassVar[Event]

    def __init__(self, directory: Path, **options: object) -> None:
        self.may_load.wait(60)


def sure_answer() -> Classification:
    return Classification((0.1, 0.1, 0.8))


class DeadlyClassifier(KnownClassifier):
    """Has the process killed that asks about poison, as one that takes all its memory does."""

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        if any("poison" in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().classify(texts)


class GreedyClassifier(KnownClassifier):
    """Wants more memory for poison than there is."""

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        if any("poison" in text for text in texts):
            bytearray(1 << 30)
        return super().classify(texts)
