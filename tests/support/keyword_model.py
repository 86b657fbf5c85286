"""A fourth kind of model: a ticket that holds a word of the training's high tickets is high."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticket_priority.ml.artifacts.kinds import ModelKind, Requirement
from ticket_priority.ml.artifacts.reading import read_config, write_config
from ticket_priority.ml.evaluation.metrics import report_on
from ticket_priority.ml.types import (
    ArtifactFile,
    Classification,
    LabelledText,
    TrainingConfig,
    TrainingResult,
)

KEYWORD = ModelKind(
    name="keyword",
    config=f"{__name__}.KeywordConfig",
    classifier=f"{__name__}.KeywordClassifier",
    serving=Requirement((), "serving"),
    trainer=f"{__name__}.fit",
    training=Requirement(("json",), "ml"),
)


@dataclass(frozen=True)
class KeywordConfig:
    words: tuple[str, ...]
    temperature: float = 1.0

    @classmethod
    def read(cls, directory: Path) -> KeywordConfig:
        return cls(tuple(read_config(directory, KEYWORD.name, _problem)["words"]))

    def write(self, directory: Path) -> None:
        write_config(directory, KEYWORD.name, {"words": list(self.words)})


def _problem(values: dict[str, Any]) -> str:
    return "" if isinstance(values.get("words"), list) else "words is not a list"


class KeywordClassifier:
    def __init__(
        self, directory: Path, *, threads: int | None = None, batch_tokens: int = 4096
    ) -> None:
        self.words = set(KeywordConfig.read(directory).words)

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        return [self._answer(text) for text in texts]

    def _answer(self, text: str) -> Classification:
        is_high = not self.words.isdisjoint(text.split())
        return Classification((0.1, 0.1, 0.8) if is_high else (0.8, 0.1, 0.1))


def fit(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    **options: Any,
) -> TrainingResult:
    high, others = (
        {word for row in train if (row.label == 2) == is_high for word in row.text.split()}
        for is_high in (True, False)
    )
    run_dir = Path(config.output_dir)
    folder = run_dir / "artifact"
    folder.mkdir(parents=True)
    KeywordConfig(tuple(sorted(high - others))).write(folder)
    answers = KeywordClassifier(folder).classify([row.text for row in test])
    metrics = {"model": report_on(test, [answer.priority for answer in answers])}
    (folder / ArtifactFile.METRICS).write_text(json.dumps(metrics))
    return TrainingResult(folder, run_dir, None, metrics)
