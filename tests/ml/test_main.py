"""Training from a file: a real process, with no Django to import."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ml.conftest import toy_rows
from tests.support import network
from ticket_priority.ml.__main__ import _is_first, main
from ticket_priority.ml.artifacts import store
from ticket_priority.ml.data.jsonl import read_splits, write_splits
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.serving.onnx import OnnxClassifier
from ticket_priority.ml.trainers.fit import fit
from ticket_priority.ml.types import TrainingResult

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv[0] = "ticket_priority.ml"
runpy.run_module("ticket_priority.ml", run_name="__main__", alter_sys=True)
"""
WITHOUT_DJANGO = WITHOUT.format(blocked=["django"])
WITHOUT_TORCH = WITHOUT.format(blocked=["django", "torch", "lightning", "transformers", "onnx"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [replace(row, provenance="host") for row in toy_rows(150, seed=1)]
    path = tmp_path / "data.jsonl"
    splits = {"train": rows, "validation": toy_rows(36, seed=2), "test": toy_rows(36, seed=3)}
    write_splits(path, splits, force=False)
    return path


@pytest.fixture
def flags(tiny_encoder: Path, tmp_path: Path) -> Callable[..., list[str]]:
    def flags_of(epochs: int = 6) -> list[str]:
        return [
            f"--model-name={tiny_encoder}",
            f"--output-dir={tmp_path / 'outputs'}",
            f"--epochs={epochs}",
            *("--batch-size=8", "--max-length=64", "--learning-rate=3e-3", "--threads=1"),
            *("--few-labels=0", "--no-ensemble"),
            *("--accelerator=cpu", "--precision=32-true", "--no-quantize"),
        ]

    return flags_of


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_file_becomes_an_artifact_where_there_is_no_django(
    data: Path, flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Nor is there a network, which transformers, Lightning and Weights & Biases like to ask."""
    out = tmp_path / "bucket" / "model"
    offline = ("--wandb-project=nowhere", "--wandb-mode=offline")
    command = ("fit", str(data), f"--out={out}", *flags(), *offline)
    done = network.run("-c", WITHOUT_DJANGO, *command, record=tmp_path)
    result = done.result
    assert result.returncode == 0, result.stderr
    assert done.attempts == []
    artifact = store.read(out)
    assert artifact.metrics["model"]["accuracy"] >= 0.9
    assert artifact.dataset["rows"] == {"train": 150, "validation": 36, "test": 36}
    assert artifact.dataset["provenance"] == {"host": 150, "unknown": 72}
    assert set(artifact.files) == {
        "config.json",
        "dataset.json",
        "metrics.json",
        "model.onnx",
        "model.safetensors",
        "tokenizer.json",
    }
    assert OnnxClassifier(out, threads=1).classify(["outage fire"])[0].label == "high"
    for words in ("150 to train", "Leakage: of 36 test tickets", "TF-IDF + LR", str(out)):
        assert words in result.stdout
    assert not list((tmp_path / "outputs").rglob("artifact")), "the copy in the run is not kept"


def test_a_linear_model_needs_no_torch(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    flags = (f"--out={out}", f"--output-dir={tmp_path / 'outputs'}", "--model-name=linear")
    result = run("-c", WITHOUT_TORCH, "fit", str(data), *flags)
    assert result.returncode == 0, result.stderr
    assert LinearClassifier(out).classify(["outage fire"])[0].label == "high"
    assert "majority" in result.stdout
    assert "TF-IDF + LR" not in result.stdout, "it would be the model itself"


@pytest.mark.parametrize(
    ("variables", "is_first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "3"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "1"}, False),
    ],
)
def test_the_first_process_speaks_and_writes(variables: dict[str, str], is_first: bool) -> None:
    assert _is_first(variables) is is_first


def test_vertex_ai_says_by_variables_where_things_are(
    data: Path,
    flags: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bucket is where Vertex AI mounts it; here a folder stands in for /gcs."""
    monkeypatch.setattr("ticket_priority.ml.__main__._MOUNTED", str(tmp_path))
    for name, place in (
        ("TRAINING_DATA_URI", "gs://data.jsonl"),
        ("MODEL_DIR", "gs://jobs/1/model/"),
        ("CHECKPOINT_DIR", "gs://jobs/1/checkpoints/"),
    ):
        monkeypatch.setenv(f"AIP_{name}", place)
    given = [flag for flag in flags(epochs=1) if "output-dir" not in flag]
    assert main(["fit", "--json", *given]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["artifact"] == str(tmp_path / "jobs/1/model")
    assert outcome["digest"] == store.read(tmp_path / "jobs/1/model").digest
    assert Path(outcome["run_dir"]).is_relative_to(tmp_path / "jobs/1/checkpoints")
    assert list(Path(outcome["run_dir"], "checkpoints").glob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "Give DATA, or set AIP_TRAINING_DATA_URI"),
        (["fit", "{data}"], "Give --out, or set AIP_MODEL_DIR"),
        (["fit", "bq://project.table", "--out={out}"], "neither a path nor gs://"),
        (["fit", "{data}", "--out={data}"], "is no folder to write to"),
        (["fit", "{data}", "--out={taken}"], "is not empty"),
        (["fit", "{taken}/line.jsonl", "--out={out}"], "line 1: it is not JSON"),
        (["fit", "nothing.jsonl", "--out={out}"], "nothing.jsonl cannot be read"),
        (
            ["fit", "{data}", "--out=/proc/model", "--model-name=linear", "--output-dir={runs}"],
            "/proc/model cannot be written",
        ),
        (["fit", "{data}", "--out={out}", "--epochs=0"], "max_epochs must be at least 1"),
        (["fit", "{data}", "--out={out}", "--devices=0"], "devices must be at least 1"),
        (
            ["fit", "nothing.jsonl", "--out={out}", "--model-name=linear", "--resume=last.ckpt"],
            "a linear model is trained in one go",
        ),
        (["fit", "{data}", "--out={out}", "--num-nodes=0"], "num_nodes must be at least 1"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_line(
    arguments: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("TRAINING_DATA_URI", "MODEL_DIR", "CHECKPOINT_DIR"):
        monkeypatch.delenv(f"AIP_{name}", raising=False)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "line.jsonl").write_text("{\n")
    places = {
        "data": data,
        "out": tmp_path / "out",
        "taken": taken,
        "runs": tmp_path / "runs",
    }
    assert main([argument.format(**places) for argument in arguments]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_what_was_trained_is_named_where_it_cannot_be_written_to_its_place(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Somebody else puts a file there while the model is trained."""
    out, runs = tmp_path / "out", tmp_path / "runs"

    def fit_meanwhile(*args: Any, **options: Any) -> TrainingResult:
        result = fit(*args, **options)
        out.mkdir()
        (out / "theirs").touch()
        return result

    monkeypatch.setattr("ticket_priority.ml.__main__.fit", fit_meanwhile)
    given = ["fit", str(data), f"--out={out}", "--model-name=linear", f"--output-dir={runs}"]
    assert main(given) == 1
    (kept,) = runs.rglob("artifact")
    said = capsys.readouterr().err
    assert "is not empty" in said
    assert f"What was trained is in {kept}, and can be brought in from there." in said
    assert store.read(kept).dataset["rows"]["train"] > 0


def test_an_empty_split_is_named(
    data: Path,
    flags: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    splits: dict[str, Any] = {**read_splits(data)[0], "validation": []}
    write_splits(data, splits, force=True)
    assert main(["fit", str(data), f"--out={tmp_path / 'out'}", *flags()]) == 1
    assert "The validation split is empty" in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_two_nodes_train_together_and_the_first_writes(
    data: Path, flags: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Two torchrun agents, as on two machines, that meet at one address."""
    out = tmp_path / "out"
    port = free_port()
    nodes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2"),
                *(f"--node-rank={rank}", "--nproc-per-node=1", "--master-addr=127.0.0.1"),
                *(f"--master-port={port}", "-m", "ticket_priority.ml", "fit", str(data)),
                *(f"--out={out}", "--num-nodes=2", "--devices=1", "--strategy=ddp"),
                *flags(epochs=3),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    artifact = store.read(out)
    assert artifact.metrics["training"]["epochs"] == 3
    assert artifact.metrics["training"]["hyperparameters"]["num_nodes"] == 2
    (last,) = (tmp_path / "outputs").rglob("last.ckpt")
    steps = torch.load(last, weights_only=True)["global_step"]
    assert steps == 3 * 10, "each node takes half of the 150 rows, in batches of eight"
    assert "TF-IDF + LR" in said[0]
    assert "TF-IDF + LR" not in said[1]
