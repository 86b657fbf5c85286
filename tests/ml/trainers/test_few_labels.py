from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from tests.ml.conftest import FILLERS, toy_rows
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.serving.onnx import OnnxClassifier
from ticket_priority.ml.trainers.encoders.resolve import resolve
from ticket_priority.ml.trainers.pipeline import fit
from ticket_priority.ml.trainers.transformer import linear_probe
from ticket_priority.ml.types import LabelledText, TrainingConfig, TrainingResult

TRAIN, VALIDATION, TEST = toy_rows(90, seed=1), toy_rows(30, seed=2), toy_rows(30, seed=3)


@pytest.fixture(scope="module")
def config(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    return TrainingConfig(
        model_name=str(tiny_encoder),
        output_dir=str(tmp_path_factory.mktemp("outputs")),
        max_length=64,
        threads=1,
        quantize=False,
        ensemble=True,
        few_labels=1000,
    )


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(config: TrainingConfig, lines: list[str]) -> TrainingResult:
    return fit(TRAIN, VALIDATION, TEST, config, progress=lines.append)


def test_nothing_is_fine_tuned_and_words_win_where_words_tell(
    result: TrainingResult, lines: list[str]
) -> None:
    training = result.metrics["training"]
    assert result.best_checkpoint is None
    assert training["folds"] == 5
    assert training["rows"] == {"train": 120, "validation": 0, "test": 30}
    assert training["chosen"] == "tfidf_logreg"
    assert training["candidates"]["tfidf_logreg"]["val_accuracy"] == 1.0
    assert any("too few to fine-tune" in line for line in lines)
    answers = LinearClassifier(result.artifact_dir).classify([row.text for row in TEST])
    assert [answer.priority for answer in answers] == [row.label for row in TEST]


def test_every_C_is_written_down(result: TrainingResult) -> None:
    with (result.run_dir / "metrics.csv").open(newline="") as file:
        logged = list(csv.DictReader(file))
    tried = [row["transformer_C"] for row in logged if row["transformer_C"]]
    assert [float(C) for C in tried] == list(linear_probe.C_VALUES)
    assert sum(bool(row["tfidf_logreg_C"]) for row in logged) == 4
    assert all(float(row["val_loss"]) >= 0 for row in logged)


def test_the_published_encoder_answers_as_the_regression(
    config: TrainingConfig, tmp_path: Path
) -> None:
    alone = replace(config, output_dir=str(tmp_path), ensemble=False)
    result = fit(TRAIN, VALIDATION, TEST, alone)
    assert result.metrics["training"]["chosen"] == "transformer"
    answers = OnnxClassifier(result.artifact_dir, threads=1).classify([r.text for r in TEST])
    right = [answer.priority == row.label for answer, row in zip(answers, TEST, strict=True)]
    assert np.mean(right) == pytest.approx(result.metrics["model"]["accuracy"])


def test_labels_that_say_nothing_are_seen_through(config: TrainingConfig, tmp_path: Path) -> None:
    """Judged on its own rows, a regression on 32 features would look better than chance."""
    draw = random.Random(5)  # noqa: S311
    noise = [
        LabelledText(" ".join(draw.choices(FILLERS, k=8)) + f" {number}", number % 3)
        for number in range(90)
    ]
    result = fit(noise, VALIDATION[:9], TEST, replace(config, output_dir=str(tmp_path)))
    for figures in result.metrics["training"]["candidates"].values():
        assert figures["val_accuracy"] < 0.6


def test_with_enough_labels_the_encoder_is_fine_tuned(
    config: TrainingConfig, tmp_path: Path
) -> None:
    enough = replace(config, output_dir=str(tmp_path), few_labels=120, max_epochs=1)
    result = fit(TRAIN, VALIDATION, TEST, enough, show_progress_bar=False)
    assert result.best_checkpoint is not None


def test_a_head_of_two_classes_never_says_the_third(tiny_encoder: Path) -> None:
    rows = toy_rows(40, seed=4, classes=(0, 2))
    encoder = linear_probe.FeatureExtractor.load(resolve(str(tiny_encoder)), 64)
    features = encoder.features(rows)
    head = linear_probe.fit_head(features, [row.label for row in rows], C=0.1)
    answers = linear_probe.probabilities(head, features)
    assert answers[:, 1].max() < 1e-9
    expected = head.predict_proba(features)
    assert answers[:, [0, 2]] == pytest.approx(expected, abs=1e-5)


def test_of_several_processes_the_first_alone_fits(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    monkeypatch.setenv("TICKET_PRIORITY_RUN_DIR", str(tmp_path))
    result = fit(TRAIN, VALIDATION, TEST, config)
    assert result.metrics == {}
    assert list(tmp_path.iterdir()) == []


def test_texts_without_words_are_left_to_the_encoder(
    config: TrainingConfig, tmp_path: Path
) -> None:
    wordless = [
        LabelledText("abc"[number % 3] + " " + "xyz"[number % 2], number % 3)
        for number in range(60)
    ]
    lines: list[str] = []
    result = fit(
        wordless,
        wordless[:9],
        TEST,
        replace(config, output_dir=str(tmp_path)),
        progress=lines.append,
    )
    assert result.metrics["training"]["chosen"] == "transformer"
    assert any(line.startswith("There is no linear model: ") for line in lines)
