from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ml.conftest import toy_rows
from tests.ml.serving.test_onnx import edit_config
from ticket_priority.exceptions import ArtifactError
from ticket_priority.ml.artifacts.ensemble import EnsembleConfig, Member
from ticket_priority.ml.serving.ensemble import EnsembleClassifier
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.trainers.linear import model as linear

TEXTS = [row.text for row in toy_rows(12, seed=9)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two linear models that learnt different rows."""
    folder = tmp_path_factory.mktemp("ensemble")
    for number, seed in enumerate((1, 2), start=1):
        (folder / f"linear-{number}").mkdir()
        linear.train(toy_rows(60, seed=seed)).write(folder / f"linear-{number}")
    members = (Member("linear-1", "linear", 3.0), Member("linear-2", "linear", 1.0))
    EnsembleConfig(members, temperature=2.0).write(folder)
    return folder


@pytest.fixture
def artifact(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "ensemble"))


def test_it_answers_the_weighted_mean_at_its_temperature(written: Path) -> None:
    alone = [
        np.array([each.probabilities for each in LinearClassifier(written / name).classify(TEXTS)])
        for name in ("linear-1", "linear-2")
    ]
    mean = np.sqrt(0.75 * alone[0] + 0.25 * alone[1])
    expected = mean / mean.sum(axis=1, keepdims=True)
    answers = EnsembleClassifier(written).classify(TEXTS)
    assert np.array([each.probabilities for each in answers]) == pytest.approx(expected)


def test_no_text_gives_no_answer(written: Path) -> None:
    assert EnsembleClassifier(written).classify([]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": []}, "not a list of models"),
        ({"members": None}, "not a list of models"),
        ({"members": ["linear-1"]}, "not an object"),
        ({"members": [{"folder": "../linear-1", "kind": "linear", "weight": 1}]}, "not a name"),
        ({"members": [{"folder": "/etc", "kind": "linear", "weight": 1}]}, "not a name"),
        ({"members": [{"folder": "linear-1", "kind": "ensemble", "weight": 1}]}, "kind"),
        ({"members": [{"folder": "linear-1", "kind": "linear", "weight": 0}]}, "weight"),
        ({"members": [{"folder": "linear-1", "kind": "linear", "weight": True}]}, "weight"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_a_configuration_it_cannot_follow_is_refused(
    artifact: Path, change: dict[str, Any], message: str
) -> None:
    edit_config(**change)(artifact)
    with pytest.raises(ArtifactError, match=message):
        EnsembleClassifier(artifact)


def test_a_missing_member_is_named(artifact: Path) -> None:
    shutil.rmtree(artifact / "linear-2")
    with pytest.raises(ArtifactError, match="linear-2"):
        EnsembleClassifier(artifact)


def test_a_member_of_another_kind_than_said_is_refused(artifact: Path) -> None:
    config = json.loads((artifact / "linear-2/config.json").read_text())
    (artifact / "linear-2/config.json").write_text(json.dumps(config | {"kind": "transformer"}))
    with pytest.raises(ArtifactError, match="kind"):
        EnsembleClassifier(artifact)
