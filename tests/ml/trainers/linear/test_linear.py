from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from tests.ml.conftest import toy_rows
from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.trainers.fit import fit
from ticket_priority.ml.trainers.linear import baselines as baseline
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.trainers.linear import train as linear_trainer
from ticket_priority.ml.types import LabelledText, TrainingConfig

TRAIN, VALIDATION, TEST = toy_rows(120, 1), toy_rows(45, 2), toy_rows(45, 3)


@pytest.fixture
def config(tmp_path: Path) -> TrainingConfig:
    return TrainingConfig(model_name="linear", output_dir=str(tmp_path / "outputs"))


def noisy(rows: list[LabelledText]) -> list[LabelledText]:
    """Give every fifth row the next class, so that no model is right about all."""
    return [
        replace(row, label=(row.label + (index % 5 == 0)) % 3) for index, row in enumerate(rows)
    ]


def test_a_run_ends_in_an_artifact_that_serves_what_was_measured(config: TrainingConfig) -> None:
    said: list[str] = []
    result = linear_trainer.fit(TRAIN, VALIDATION, TEST, config, progress=said.append)
    assert {path.name for path in result.artifact_dir.iterdir()} == {
        "config.json",
        "metrics.json",
        "model.safetensors",
    }
    assert json.loads((result.artifact_dir / "metrics.json").read_text()) == result.metrics
    # The baseline of words and letters would be the model itself, printed twice.
    assert set(result.metrics) == {"model", "majority", "serving", "training"}
    assert result.metrics["model"]["accuracy"] >= 0.95
    assert result.metrics["majority"] == baseline.majority(TRAIN, TEST)
    assert result.metrics["training"]["rows"] == {"train": 120, "validation": 45, "test": 45}
    assert any("120 texts" in line for line in said)
    answers = LinearClassifier(result.artifact_dir).classify([row.text for row in TEST])
    served = metrics.report(
        [row.label for row in TEST], probabilities=[answer.probabilities for answer in answers]
    )
    assert served["confusion_matrix"] == result.metrics["model"]["confusion_matrix"]
    assert served["calibration_error"] == pytest.approx(
        result.metrics["model"]["calibration_error"], abs=1e-5
    )


def test_the_same_rows_give_the_same_bytes(config: TrainingConfig) -> None:
    first, second = (
        linear_trainer.fit(TRAIN, VALIDATION, TEST, config).artifact_dir for _ in range(2)
    )
    for name in ("model.safetensors", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_every_model_that_was_tried_is_written_down(config: TrainingConfig) -> None:
    result = linear_trainer.fit(noisy(TRAIN), noisy(VALIDATION), noisy(TEST), config)
    with (result.run_dir / "metrics.csv").open() as file:
        tried = list(csv.DictReader(file))
    assert len(tried) == len(linear.C_VALUES) * len(linear.CLASS_WEIGHTS)
    best = max(float(line["val_accuracy"]) for line in tried)
    assert result.metrics["training"]["best_val_accuracy"] == best


@pytest.mark.parametrize("monitor", ["val_accuracy", "val_macro_f1", "val_loss"])
def test_the_monitor_chooses(monitor: str) -> None:
    tried: list[linear.Trial] = []
    rows = noisy(toy_rows(60, 4))
    best = linear.choose(rows, noisy(VALIDATION), monitor, on_trial=tried.append)
    values = [trial.figures[monitor] for trial in tried]
    assert best.figures[monitor] == (min(values) if monitor == "val_loss" else max(values))
    # On a tie the first, most regularised one.
    assert best.C == tried[values.index(best.figures[monitor])].C


def test_the_temperature_lowers_the_loss_on_the_validation_split() -> None:
    rows, validation = noisy(toy_rows(240, 4)), noisy(toy_rows(90, 5))
    best = linear.choose(rows, validation, "val_accuracy")
    truth = np.array([row.label for row in validation])
    texts = [row.text for row in validation]

    def loss(model: linear.LinearModel) -> float:
        chosen = model.probabilities(texts)[np.arange(len(truth)), truth]
        return float(-np.log(chosen).mean())

    assert best.model.temperature != 1.0
    assert loss(best.model) < loss(replace(best.model, temperature=1.0))
    for other in (0.8, 1.25):
        warmer = replace(best.model, temperature=best.model.temperature * other)
        assert loss(best.model) <= loss(warmer)


class ReadOnce(list[LabelledText]):
    """Rows as they lie on disk: whoever walks them twice reads them twice."""

    walks = 0

    def __iter__(self) -> Iterator[LabelledText]:
        self.walks += 1
        return super().__iter__()


def contradicting(low: float, high: float) -> ReadOnce:
    """Return texts that are as often Low as High, with these weights."""
    rows = toy_rows(60, 6, classes=(0, 2))
    return ReadOnce(
        replace(row, label=label, weight=weight)
        for row in rows
        for label, weight in ((0, low), (2, high))
    )


@pytest.mark.parametrize(("low", "high", "answer"), [(0.5, 1.5, 2), (1.5, 0.5, 0)])
def test_a_heavier_row_counts_more(low: float, high: float, answer: int) -> None:
    rows = contradicting(low, high)
    best = linear.choose(rows, toy_rows(30, 7, classes=(answer,)), "val_loss")
    texts = [row.text for row in toy_rows(30, 8, classes=(0, 2))]
    assert set(best.model.probabilities(texts).argmax(axis=1).tolist()) == {answer}
    assert rows.walks == 1


def test_weights_move_rows_against_each_other_alone() -> None:
    validation = toy_rows(30, 7, classes=(2,))
    texts = [row.text for row in validation]
    small, large = (
        model.scores(model.features.transform(texts))
        for model in (
            linear.choose(contradicting(low, high), validation, "val_loss").model
            for low, high in ((0.5, 1.5), (50.0, 150.0))
        )
    )
    assert (small[:, 1] > small[:, 0]).all()
    assert small == pytest.approx(large, abs=1e-6)


def test_the_baseline_counts_all_rows_alike() -> None:
    test = toy_rows(30, 7, classes=(0, 2))
    heavy, even = (contradicting(*weights) for weights in ((0.5, 1.5), (1.0, 1.0)))
    assert baseline.tfidf_logreg(heavy, test) == baseline.tfidf_logreg(even, test)


def test_a_validation_class_that_training_lacks_stands_in_no_ones_way() -> None:
    best = linear.choose(toy_rows(60, 1, classes=(0, 2)), VALIDATION, "val_loss")
    assert best.model.learned == [0, 2]
    assert not best.model.probabilities(["invoice refund"])[:, 1].any()


def test_rare_letters_give_way_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [
        *TRAIN,
        *(
            LabelledText(f"outage {chr(0x4E00 + i)}{chr(0x4E00 + i)}", 2)
            for i in [*range(50), *range(50)]
        ),
    ]
    monkeypatch.setattr("ticket_priority.ml.artifacts.linear.MOST_LETTERS", 30)
    model = linear.train(rows)
    letters = dict(model.features.transformer_list)["letters"]
    assert len({letter for ngram in letters.vocabulary_ for letter in ngram}) <= 30
    model.write(tmp_path)
    texts = [row.text for row in rows[::7]]
    answers = [answer.probabilities for answer in LinearClassifier(tmp_path).classify(texts)]
    assert np.array(answers) == pytest.approx(model.probabilities(texts), abs=2e-6)


@pytest.mark.parametrize("empty", ["train", "validation", "test"])
def test_an_empty_split_is_named(config: TrainingConfig, empty: str) -> None:
    splits = {"train": TRAIN, "validation": VALIDATION, "test": TEST} | {empty: []}
    with pytest.raises(TrainingError, match=f"The {empty} split is empty"):
        linear_trainer.fit(**splits, config=config)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([LabelledText("?", 0), LabelledText("!", 1)], "no words"),
        ([LabelledText("outage", 2), LabelledText("outage outage", 2)], "one class"),
    ],
)
def test_what_cannot_be_learned_is_said_and_leaves_no_artifact(
    config: TrainingConfig, train: list[LabelledText], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        linear_trainer.fit(train, VALIDATION, TEST, config)
    assert not list(Path(config.output_dir).rglob("artifact"))


def test_there_is_nothing_to_resume(config: TrainingConfig) -> None:
    """A configuration for "linear" refuses it itself; the settings may name this trainer alone."""
    other = replace(config, model_name="a-transformer", resume_from="last.ckpt")
    with pytest.raises(TrainingError, match="nothing to resume"):
        linear_trainer.fit(TRAIN, VALIDATION, TEST, other)


def test_an_interrupted_run_leaves_no_artifact(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(linear_config.LinearConfig, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        linear_trainer.fit(TRAIN, VALIDATION, TEST, config)
    assert not [path for path in Path(config.output_dir).rglob("*") if "artifact" in path.name]


FIT = """
import sys
from ticket_priority.ml.types import LabelledText, TrainingConfig

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

blocked = {blocked!r}
sys.meta_path.insert(0, Absent())
from ticket_priority.ml.trainers.fit import fit
rows = [LabelledText(word, label) for label, word in enumerate(["typo", "slow", "outage"])] * 4
try:
    result = fit(rows, rows, rows, TrainingConfig(model_name=sys.argv[1], output_dir=sys.argv[2]))
    print(result.metrics["model"]["accuracy"])
except Exception as error:
    print(type(error).__name__, error)
"""
HEAVY = ("torch", "lightning", "transformers", "torchmetrics", "onnx", "onnxruntime", "tokenizers")


def run_fit(model_name: str, folder: Path, *, blocked: tuple[str, ...] = ()) -> str:
    command = [sys.executable, "-c", FIT.format(blocked=blocked), model_name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_linear_model_is_trained_without_torch_or_django(tmp_path: Path) -> None:
    assert run_fit("linear", tmp_path, blocked=(*HEAVY, "django")) == "1.0"


def test_a_transformer_without_torch_names_the_extra_and_the_way_without(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TrainingError, match="torch, onnx must be installed") as caught:
        fit(TRAIN, VALIDATION, TEST, replace(config, model_name="some/encoder"))
    assert 'pip install "django-ticket-priority[ml]"' in str(caught.value)
    assert '"linear"' in str(caught.value)


def test_any_other_name_goes_to_the_transformer(tmp_path: Path) -> None:
    said = run_fit(str(tmp_path / "no-such-encoder"), tmp_path)
    assert "no-such-encoder" in said
    assert said.split()[0] in ("EncoderUnavailableError", "TrainingError")


def test_without_scikit_learn_the_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ticket_priority.ml")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"sklearn.*django-ticket-priority\[ml\].*\[linear\]"):
        import ticket_priority.ml.trainers  # noqa: F401


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.tuples(*[st.floats(0.015625, 1.0)] * 3)),
        min_size=1,
        max_size=30,
    )
)
def test_the_calibration_error_is_that_of_torchmetrics(
    rows: list[tuple[int, tuple[float, float, float]]],
) -> None:
    import torch

    truth = [label for label, _ in rows]
    scores = np.array([scores for _, scores in rows], np.float32)
    scores /= scores.sum(axis=1, keepdims=True)
    # On a tie theirs takes either class, and float32 may fall on either side of a bin's border.
    assume(not _has_tie(scores) and not _is_near_a_border(scores))
    theirs = multiclass_calibration_error(
        torch.from_numpy(scores.copy()), torch.tensor(truth), num_classes=3, n_bins=15, norm="l1"
    )
    ours = metrics.report(truth, probabilities=scores)["calibration_error"]
    assert ours == pytest.approx(float(theirs), abs=1e-5)


def _has_tie(scores: np.ndarray) -> bool:
    ordered = np.sort(scores, axis=1)
    return bool((ordered[:, -1] - ordered[:, -2] < 1e-6).any())


def _is_near_a_border(scores: np.ndarray) -> bool:
    places = scores.max(axis=1).astype(np.float64) * 15
    return bool((np.abs(places - np.round(places)) < 1e-4).any())
