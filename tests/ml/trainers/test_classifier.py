from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.ml.conftest import toy_rows
from ticket_priority.exceptions import ArtifactError
from ticket_priority.ml.batching import length_sorted_batches
from ticket_priority.ml.serving.onnx import OnnxClassifier
from ticket_priority.ml.trainers.classifier import TorchClassifier
from ticket_priority.ml.trainers.encoders.build import build_model, load_tokenizer
from ticket_priority.ml.trainers.encoders.resolve import Encoder
from ticket_priority.ml.trainers.export.comparison import ExportSource, HeldOutTexts
from ticket_priority.ml.trainers.export.onnx import write_artifact

TEXTS = [*(row.text for row in toy_rows(30, seed=5)), "", "outage " * 200]


@pytest.fixture(scope="module")
def artifact(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mean-pooled classifier with a prefix and a temperature, exported to float32 ONNX."""
    encoder = Encoder(str(tiny_encoder), "mean", "please ")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = build_model(encoder, 3)
        torch.nn.init.normal_(model.head.weight, std=0.5)
    folder = tmp_path_factory.mktemp("artifact")
    source = ExportSource(model, load_tokenizer(encoder), encoder, max_length=32, base_model="tiny")
    write_artifact(source, folder, HeldOutTexts())
    config = json.loads((folder / "config.json").read_text()) | {"temperature": 1.7}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_it_agrees_with_onnxruntime(artifact: Path) -> None:
    by_torch = TorchClassifier(artifact, device="cpu").classify(TEXTS)
    by_onnx = OnnxClassifier(artifact).classify(TEXTS)
    high = [answer.probabilities[2] for answer in by_torch]
    assert max(high) - min(high) > 0.05
    for ours, theirs in zip(by_torch, by_onnx, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
        assert sum(ours.probabilities) == pytest.approx(1.0, abs=1e-12)


def test_batches_do_not_change_the_answers(artifact: Path) -> None:
    one_by_one = TorchClassifier(artifact, device="cpu", batch_tokens=1).classify(TEXTS)
    together = TorchClassifier(artifact, device="cpu").classify(TEXTS)
    for alone, batched in zip(one_by_one, together, strict=True):
        assert alone.probabilities == pytest.approx(batched.probabilities, abs=1e-5)


def test_threads_share_one_classifier(artifact: Path) -> None:
    classifier = TorchClassifier(artifact, device="cpu")
    assert classifier.classify([]) == []
    alone = classifier.classify(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(classifier.classify, [TEXTS] * 8):
            for answer, expected in zip(answers, alone, strict=True):
                assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def spoil_weights(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["surplus" if name == "surplus" else "head.weight"] = weights.pop("head.weight")
    if name == "missing":
        del weights["head.weight"]
    if name == "not finite":
        weights["head.weight"] = weights["head.weight"] * torch.nan
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize("name", ["surplus", "missing"])
def test_weights_must_fit_exactly(name: str, artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "spoilt")
    spoil_weights(folder, name)
    with pytest.raises(ArtifactError, match=r"model\.safetensors cannot be loaded.*head\.weight"):
        TorchClassifier(folder, device="cpu")


def test_numbers_that_are_not_finite_are_no_answer(artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "spoilt")
    spoil_weights(folder, "not finite")
    with pytest.raises(ArtifactError, match="not finite"):
        TorchClassifier(folder, device="cpu").classify(["outage"])


def test_a_missing_or_cut_file_says_what_to_do(artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "spoilt")
    (folder / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ArtifactError, match="cannot be loaded.*activate another version"):
        TorchClassifier(folder, device="cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="is missing.*activate another version"):
        TorchClassifier(folder, device="cpu")


def test_a_configuration_of_no_known_model_says_what_to_do(artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "spoilt")
    config = json.loads((folder / "config.json").read_text()) | {"encoder": {"model_type": "odd"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"config\.json cannot be loaded.*odd"):
        TorchClassifier(folder, device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a CUDA device: run `pytest -m gpu tests/ml` on a machine that has one",
)
def test_bfloat16_on_a_gpu_stays_close(artifact: Path) -> None:
    on_gpu = TorchClassifier(artifact).classify(TEXTS)
    on_cpu = TorchClassifier(artifact, device="cpu").classify(TEXTS)
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=0.05)


def test_batches_are_sorted_and_capped() -> None:
    lengths = [5, 50, 7, 200, 50, 6, 3]
    assert length_sorted_batches(lengths, 100) == [[3], [1, 4], [2, 5, 0, 6]]
    assert length_sorted_batches([], 100) == []
    assert length_sorted_batches([0, 0], 1) == [[0], [1]]
    with pytest.raises(ValueError, match="at least 1"):
        length_sorted_batches(lengths, 0)
