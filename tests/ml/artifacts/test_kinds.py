from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ml.conftest import toy_rows
from tests.support.keyword_model import KEYWORD
from ticket_priority.checks.settings import check_serving
from ticket_priority.classifiers import build
from ticket_priority.conf import get_settings
from ticket_priority.exceptions import ArtifactError, TrainingError
from ticket_priority.ml.artifacts.ensemble import EnsembleConfig, Member
from ticket_priority.ml.artifacts.kinds import KINDS, Requirement, kind_to_train
from ticket_priority.ml.artifacts.reading import write_config
from ticket_priority.ml.artifacts.store import publish
from ticket_priority.ml.evaluation.report import lines
from ticket_priority.ml.serving.ensemble import EnsembleClassifier
from ticket_priority.ml.trainers.fit import fit
from ticket_priority.ml.types import TrainingConfig, TrainingResult


@pytest.mark.parametrize("name", list(KINDS))
def test_what_a_row_names_is_there(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    assert kind.name == name
    assert callable(kind.load_classifier())
    assert kind.trainer is None or callable(kind.load_trainer())
    write_config(tmp_path, name, {})
    with pytest.raises(ArtifactError) as caught:
        kind.load_config().read(tmp_path)
    assert "its kind is" not in str(caught.value), "its configuration is of the same name"


@pytest.mark.parametrize(
    ("model_name", "expected"),
    [
        ("linear", "linear"),
        ("embedded", "transformer"),
        ("some/encoder", "transformer"),
        ("ensemble", "transformer"),
    ],
)
def test_a_model_name_chooses_the_kind(model_name: str, expected: str) -> None:
    assert kind_to_train(model_name).name == expected


def test_reading_the_table_imports_nothing_heavy() -> None:
    heavy = {"numpy", "torch", "onnxruntime", "tokenizers", "safetensors", "django"}
    code = (
        "import sys; import ticket_priority.ml.artifacts.kinds; "
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestAFourthKind:
    """One row of `KINDS` is all that the package has to be told."""

    @pytest.fixture(autouse=True)
    def registered(
        self, monkeypatch: pytest.MonkeyPatch, configure: Callable[..., None]
    ) -> Iterator[None]:
        monkeypatch.setitem(KINDS, KEYWORD.name, KEYWORD)
        configure(TRAINING={"MODEL_NAME": KEYWORD.name})
        yield

    @pytest.fixture
    def run(self, tmp_path: Path) -> TrainingResult:
        config = TrainingConfig(model_name=KEYWORD.name, output_dir=str(tmp_path / "run"))
        return fit(toy_rows(120, 1), toy_rows(30, 2), toy_rows(30, 3), config)

    def test_it_is_trained_published_and_served(self, run: TrainingResult, tmp_path: Path) -> None:
        artifact = publish(run.artifact_dir, tmp_path / "models", "keyword-1")
        assert artifact.kind == "keyword"
        assert any("accuracy" in line for line in lines(artifact.metrics))
        assert get_settings().serving.classifiers["keyword"] == KEYWORD.classifier
        answers = build(artifact.kind, artifact.directory).classify(["an outage", "a typo"])
        assert [answer.label for answer in answers] == ["high", "low"]

    def test_it_is_a_member_of_an_ensemble(self, run: TrainingResult, tmp_path: Path) -> None:
        folder = tmp_path / "ensemble"
        shutil.copytree(run.artifact_dir, folder / "keyword")
        EnsembleConfig((Member("keyword", "keyword", 1.0),)).write(folder)
        (answer,) = EnsembleClassifier(folder).classify(["an outage"])
        assert answer.probabilities == pytest.approx((0.1, 0.1, 0.8))

    def test_what_it_lacks_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert list(check_serving()) == []
        lacking: dict[str, Any] = {
            "serving": Requirement(("no_such_server",), "serving"),
            "training": Requirement(("no_such_trainer",), "ml"),
        }
        monkeypatch.setitem(KINDS, KEYWORD.name, replace(KEYWORD, **lacking))
        (warning,) = check_serving()
        assert warning.id == "ticket_priority.W024"
        assert "A keyword cannot be served: no_such_server" in warning.msg
        config = TrainingConfig(model_name=KEYWORD.name, output_dir=str(tmp_path))
        with pytest.raises(TrainingError, match=r"no_such_trainer.*ticket-priority\[ml\]"):
            fit([], [], [], config)
