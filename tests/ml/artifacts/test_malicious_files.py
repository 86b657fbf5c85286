"""Checkpoints, base models and artifacts from anybody: no code in them runs, no hub is asked."""

from __future__ import annotations

import ast
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import ticket_priority
from tests.ml.conftest import toy_rows
from tests.support.tampering import Evil, evil_pickle
from ticket_priority.exceptions import ArtifactError, EncoderUnavailableError, TrainingError
from ticket_priority.ml.artifacts.transformer import TransformerConfig
from ticket_priority.ml.trainers.classifier import TorchClassifier
from ticket_priority.ml.trainers.encoders.build import (
    build_model,
    build_model_from_config,
    load_tokenizer,
)
from ticket_priority.ml.trainers.encoders.resolve import resolve
from ticket_priority.ml.trainers.fit import fit
from ticket_priority.ml.trainers.runs import checkpoints as runs
from ticket_priority.ml.types import TrainingConfig

TRAINED = {"epoch": 0, "global_step": 1, "state_dict": {}, "callbacks": {}}
CODE = "from pathlib import Path\nPath({mark!r}).touch()\nclass EvilConfig: pass\n"
REMOTE = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.EvilModel",
    "AutoModelForSequenceClassification": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Return the file that evil code would touch."""
    return tmp_path / "mark"


def bare_pickle(path: Path, mark: Path, model_name: str) -> None:
    path.write_bytes(evil_pickle(mark))


def old_format(path: Path, mark: Path, model_name: str) -> None:
    torch.save({**TRAINED, "more": Evil(mark)}, path, _use_new_zipfile_serialization=False)


def beside_the_weights(path: Path, mark: Path, model_name: str) -> None:
    known = {"model_name": model_name, "trainable_layers": None}
    torch.save({**TRAINED, "hyper_parameters": known, "optimizer_states": [Evil(mark)]}, path)


def in_the_archive(path: Path, mark: Path, model_name: str) -> None:
    torch.save(TRAINED, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, evil_pickle(mark) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize(
    "forge", [bare_pickle, old_format, beside_the_weights, in_the_archive], ids=lambda f: f.__name__
)
def test_what_a_checkpoint_would_run_is_not_run(
    tiny_encoder: Path, tmp_path: Path, mark: Path, forge: Callable[[Path, Path, str], None]
) -> None:
    path = tmp_path / "last.ckpt"
    forge(path, mark, str(tiny_encoder))
    config = TrainingConfig(
        model_name=str(tiny_encoder),
        output_dir=str(tmp_path / "outputs"),
        accelerator="cpu",
        resume_from=str(path),
    )
    with pytest.raises(TrainingError, match=r"last\.ckpt cannot be read.*which is not run"):
        fit(toy_rows(9, seed=1), toy_rows(9, seed=2), toy_rows(9, seed=3), config)
    assert not mark.exists()
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert mark.exists(), "a careless reader would have run it"


@pytest.mark.parametrize("content", [[1], {}, {"hyper_parameters": [], "epoch": 1}, TRAINED])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    config = TrainingConfig(resume_from=str(tmp_path / "last.ckpt"))
    with pytest.raises(TrainingError, match=r"last\.ckpt (holds a list|is no checkpoint)"):
        runs.read_checkpoint(config)


@pytest.fixture
def base(tiny_encoder: Path, tmp_path: Path) -> Path:
    """Return a base model's folder, for a test to spoil."""
    return Path(shutil.copytree(tiny_encoder, tmp_path / "base"))


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def built(folder: Path) -> torch.nn.Module:
    encoder = resolve(str(folder), local_files_only=True)
    load_tokenizer(encoder)
    return build_model(encoder, 3)


def test_code_beside_a_known_model_is_not_run(base: Path, mark: Path) -> None:
    (base / "evil.py").write_text(CODE.format(mark=str(mark)))
    configure(base, auto_map=REMOTE)
    tokenizer = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"auto_map": REMOTE}))
    assert type(built(base)).__module__.startswith("transformers.models.bert")
    assert not mark.exists()


def test_a_model_that_is_code_is_refused(base: Path, mark: Path) -> None:
    (base / "evil.py").write_text(CODE.format(mark=str(mark)))
    configure(base, auto_map=REMOTE, model_type="evil")
    with pytest.raises(EncoderUnavailableError, match="cannot be loaded"):
        built(base)
    assert not mark.exists()


def test_a_pickle_beside_the_weights_is_not_read(base: Path, mark: Path) -> None:
    (base / "pytorch_model.bin").write_bytes(evil_pickle(mark))
    (base / "training_args.bin").write_bytes(evil_pickle(mark))
    built(base)
    assert not mark.exists()


def test_an_index_that_leads_to_a_pickle_is_refused(base: Path, mark: Path) -> None:
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    (base / "model-00002-of-00002.bin").write_bytes(evil_pickle(mark))
    shards = {
        "classifier.weight": "model-00001-of-00002.safetensors",
        "classifier.bias": "model-00002-of-00002.bin",
    }
    index = {"metadata": {"total_size": 1}, "weight_map": shards}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EncoderUnavailableError, match="cannot be loaded"):
        built(base)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["kernels-community/flash-attn", "flash_attention_2"])
def test_a_configuration_names_no_kernel_of_the_hub(base: Path, name: str) -> None:
    """With the package kernels installed it would be fetched and run, and without it nothing is."""
    configure(base, attn_implementation=name, experts_implementation=name)
    assert built(base).config._attn_implementation == "sdpa"
    values = json.loads((base / "config.json").read_text())
    for model in (
        build_model_from_config(values, "native", 3),
        build_model_from_config(values, "mean", 3),
    ):
        assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "values", [{"hidden_size": "wide"}, {"hidden_size": -1}, {"vocab_size": 10**15}]
)
def test_an_impossible_configuration_is_named(base: Path, values: dict[str, Any]) -> None:
    configure(base, **values)
    with pytest.raises(EncoderUnavailableError, match="cannot be loaded"):
        built(base)
    config = json.loads((base / "config.json").read_text())
    with pytest.raises(TrainingError, match="No classifier can be built"):
        build_model_from_config(config, "native", 3)


def test_an_artifact_on_torch_runs_nothing_of_its_own(base: Path, mark: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config |= {"auto_map": REMOTE, "attn_implementation": "someone/kernel"}
    TransformerConfig(16, "", 0, "native", "tiny", config).write(base)
    (base / "evil.py").write_text(CODE.format(mark=str(mark)))
    answer = TorchClassifier(base, device="cpu").classify(["outage"])[0]
    assert answer.is_sound
    (base / "model.safetensors").write_bytes(evil_pickle(mark))
    with pytest.raises(ArtifactError, match=r"model\.safetensors cannot be loaded"):
        TorchClassifier(base, device="cpu")
    assert not mark.exists()


def test_remote_code_is_trusted_nowhere() -> None:
    """It is not by default, so whoever says it at all must say no."""
    said = []
    for path in Path(ticket_priority.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                said.append(node.value)
            if isinstance(node, ast.Dict):
                said += [
                    value
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant) and key.value == "trust_remote_code"
                ]
    assert {isinstance(value, ast.Constant) and value.value for value in said} == {False}
