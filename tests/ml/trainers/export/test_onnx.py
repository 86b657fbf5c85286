from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig

from tests.ml.conftest import tiny_tokenizer, toy_rows
from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.trainers.encoders.build import build_model_from_config
from ticket_priority.ml.trainers.encoders.resolve import Encoder
from ticket_priority.ml.trainers.export import int8
from ticket_priority.ml.trainers.export import onnx as export
from ticket_priority.ml.trainers.export.comparison import (
    ExportComparison,
    ExportSource,
    HeldOutTexts,
    _sampling_step,
)
from ticket_priority.ml.trainers.export.onnx import Quantization
from ticket_priority.ml.types import CLASS_NAMES

ROWS = toy_rows(40, seed=3)
TEXTS = [row.text for row in ROWS]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A random classifier whose classes lie well apart and whose embedding is worth int8."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = BertConfig(
            vocab_size=2048,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
        built = build_model_from_config(config.to_dict(), "native", 3)
    return built.eval()


@pytest.fixture(scope="module")
def labels(model: nn.Module) -> list[int]:
    """The torch model's own answers, so that any change of a label is a loss."""
    answers = []
    for text in TEXTS:
        batch = tiny_tokenizer()(f"please {text}", return_tensors="pt")
        with torch.inference_mode():
            answers.append(int(model(batch["input_ids"], batch["attention_mask"]).logits.argmax()))
    assert len(set(answers)) > 1
    return answers


def write(
    model: nn.Module,
    directory: Path,
    labels: Sequence[int] = (0,) * len(TEXTS),
    probabilities: Any = None,
    **options: Any,
) -> dict[str, Any]:
    encoder = Encoder("nowhere", "native", "please ")
    source = ExportSource(model, tiny_tokenizer(), encoder, max_length=48, base_model="tiny")
    held_out = HeldOutTexts(TEXTS[: len(labels)], labels, probabilities)
    return export.write_artifact(source, directory, held_out, **options)


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one real export of this module leaves its float32 graph."""
    return tmp_path_factory.mktemp("float32") / "model.onnx"


@pytest.fixture(scope="module")
def published(
    model: nn.Module, labels: list[int], float32: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[str]]:
    real = export._export

    def export_and_keep(model: nn.Module, path: Path, max_length: int) -> None:
        real(model, path, max_length)
        shutil.copy(path, float32)

    lines: list[str] = []
    folder = tmp_path_factory.mktemp("artifact")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_export", export_and_keep)
        figures = write(
            model, folder, labels, quantization=Quantization.ALWAYS, progress=lines.append
        )
    return folder, figures, lines


def test_an_artifact_holds_all_that_serving_needs(
    published: tuple[Path, dict[str, Any], list[str]], model: nn.Module
) -> None:
    folder, figures, lines = published
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "model.onnx",
        "tokenizer.json",
        "config.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["classes"] == list(CLASS_NAMES)
    assert {name: config[name] for name in ("format", "kind", "max_length", "prefix")} == {
        "format": 1,
        "kind": "transformer",
        "max_length": 48,
        "prefix": "please ",
    }
    assert config["encoder"]["model_type"] == "bert"
    assert config["onnx"] == {"precision": "int8", "inputs": ["input_ids", "attention_mask"]}
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == model.state_dict().keys()
    assert figures["size_mb"] == round((folder / "model.onnx").stat().st_size / 1e6, 1)
    assert lines[0] == "Exporting the model to ONNX"
    assert lines[-1].startswith("Serving in int8")


def test_the_float32_export_answers_as_torch_does(
    published: tuple[Path, dict[str, Any], list[str]],
) -> None:
    figures = published[1]["fp32"]
    assert figures["accuracy"] == figures["macro_f1"] == figures["agreement"] == 1.0
    assert figures["max_probability_difference"] < 1e-4


def test_int8_is_smaller_and_nearly_the_same(
    published: tuple[Path, dict[str, Any], list[str]], model: nn.Module
) -> None:
    folder, figures, _ = published
    assert figures["int8"]["agreement"] >= 0.9
    assert 0 < figures["int8"]["max_probability_difference"] < 0.2
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    graph = onnx.load(folder / "model.onnx").graph
    assert sum(len(tensor.raw_data) for tensor in graph.initializer) < 0.45 * weights
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


def test_an_int8_answer_does_not_depend_on_the_texts_beside_it(
    published: tuple[Path, dict[str, Any], list[str]],
) -> None:
    session = onnxruntime.InferenceSession(published[0] / "model.onnx")
    ids = np.random.default_rng(0).integers(5, 2048, (24, 40))
    together = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    for row, answer in zip(ids, together, strict=True):
        alone = {"input_ids": row[None], "attention_mask": np.ones((1, 40), np.int64)}
        assert session.run(None, alone)[0][0] == pytest.approx(answer, abs=0.005)


def test_int8_cannot_overflow_on_any_processor(
    published: tuple[Path, dict[str, Any], list[str]],
) -> None:
    graph = onnx.load(published[0] / "model.onnx").graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    # Four projections and two of the feed-forward part, for each of the two layers.
    assert len(products) == 12
    for node in products:
        assert np.abs(weights[node.input[1]].astype(int)).max() <= 63


def test_batch_and_sequence_are_free(published: tuple[Path, dict[str, Any], list[str]]) -> None:
    session = onnxruntime.InferenceSession(published[0] / "model.onnx")
    for shape in ((1, 1), (1, 40), (7, 3)):
        ids = np.full(shape, 5, np.int64)
        answer = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        assert answer.shape == (shape[0], 3)


def lower_int8(name: str) -> Callable[..., dict[str, float]]:
    judged = ExportComparison.figures

    def figures(self: Any, path: Path, *most: int) -> dict[str, float]:
        values = judged(self, path, *most)
        return values | {name: values[name] - 0.01} if path.parent.name == "int8" else values

    return figures


@pytest.fixture
def exported(published: object, float32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the float32 graph as both precisions: what is tested is which of them is kept."""

    def copy_graph(source: object, target: Path, *rest: object) -> None:
        target.parent.mkdir()
        shutil.copy(float32, target)

    monkeypatch.setattr(export, "_export", copy_graph)
    monkeypatch.setattr(int8, "quantize", copy_graph)


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_int8_that_loses_is_dropped(
    name: str, model: nn.Module, labels: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExportComparison, "figures", lower_int8(name))
    figures = write(model, tmp_path, labels)
    assert figures["precision"] == "fp32"
    assert name.replace("_f1", "-F1") in figures["reason"]
    assert set(figures["int8"]) == set(figures["fp32"])
    assert json.loads((tmp_path / "config.json").read_text())["onnx"]["precision"] == "fp32"


@pytest.mark.usefixtures("exported")
def test_int8_that_loses_nothing_is_kept(
    model: nn.Module, labels: list[int], tmp_path: Path
) -> None:
    figures = write(model, tmp_path, labels)
    assert figures["precision"] == "int8"
    assert figures["texts"] == len(TEXTS)


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"quantization": Quantization.NEVER}, "switched off"),
        ({"labels": ()}, "no test texts"),
    ],
)
def test_without_a_judgement_float32_stays(
    options: dict[str, Any], reason: str, model: nn.Module, tmp_path: Path
) -> None:
    figures = write(model, tmp_path, **options)
    assert figures["precision"] == "fp32"
    assert reason in figures["reason"]
    assert "int8" not in figures
    assert figures["fp32"]["agreement"] >= 0.9


@pytest.mark.usefixtures("exported")
def test_a_graph_that_cannot_be_quantised_stays_float32(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise int8.QuantizationError("no such operator")

    monkeypatch.setattr(int8, "quantize", fail)
    figures = write(model, tmp_path)
    assert (figures["precision"], figures["reason"]) == ("fp32", "int8 failed: no such operator")


@pytest.mark.usefixtures("exported")
def test_answers_that_are_known_are_what_the_export_is_compared_with(
    model: nn.Module, labels: list[int], tmp_path: Path
) -> None:
    own = ExportComparison(
        model,
        tiny_tokenizer()([f"please {text}" for text in TEXTS])["input_ids"],
        labels,
        0,
    ).probabilities
    figures = write(model, tmp_path / "own", labels, own)
    assert figures["fp32"]["max_probability_difference"] < 1e-5
    with pytest.raises(TrainingError, match="does not answer as the torch model does"):
        write(model, tmp_path / "other", labels, own[::-1])


def test_an_export_that_answers_otherwise_publishes_nothing(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_MOST_DIFFERENCE", 1e-9)
    with pytest.raises(TrainingError, match="does not answer as the torch model"):
        write(model, tmp_path)
    assert not (tmp_path / "config.json").exists()
    assert not (tmp_path / "model.onnx").exists()


def test_a_model_that_cannot_be_exported_is_a_clear_error(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("unsupported operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(TrainingError, match="unsupported operator.*another base model"):
        write(model, tmp_path)


def test_tied_weights_are_saved_whole(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    tied[1].weight = tied[0].weight
    export._save_weights(tied, tmp_path / "weights.safetensors")
    saved = load_file(tmp_path / "weights.safetensors")
    assert torch.equal(saved["0.weight"], tied[0].weight)
    assert torch.equal(saved["1.weight"], tied[0].weight)


def test_many_test_texts_are_sampled_evenly() -> None:
    steps = [_sampling_step(rows, 1000) for rows in (0, 2, 1000, 1001, 4500)]
    assert steps == [1, 1, 1, 2, 5]


def test_an_embedding_row_keeps_its_own_scale(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(4096, 32)).astype(np.float32)
    table[7] *= 1000
    table[8] = 0
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(table, "table")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "a.onnx")
    int8.quantize(tmp_path / "a.onnx", tmp_path / "int8" / "b.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "int8" / "b.onnx")
    rows = session.run(None, {"ids": np.arange(4096)})[0]
    assert np.abs(rows - table).max(axis=1) == pytest.approx(0, abs=20)
    steps = np.abs(table).max(axis=1) / 127
    assert (np.abs(rows - table).max(axis=1) <= steps * 0.51).all()
    assert (tmp_path / "int8" / "b.onnx").stat().st_size < 0.3 * table.nbytes
