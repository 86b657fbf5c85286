from __future__ import annotations

import csv
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision

from tests.ml.conftest import toy_rows
from tests.support.faults import full_disk
from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts.transformer import TransformerConfig
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.serving.ensemble import EnsembleClassifier
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.trainers import pipeline
from ticket_priority.ml.trainers.export.comparison import ExportSource
from ticket_priority.ml.trainers.fit import fit
from ticket_priority.ml.trainers.runs import hardware
from ticket_priority.ml.trainers.runs.checkpoints import run_directory
from ticket_priority.ml.trainers.transformer import finetune, loop, losses
from ticket_priority.ml.trainers.transformer.module import TicketClassificationModule
from ticket_priority.ml.types import LabelledText, TrainingConfig, TrainingResult

TRAIN, VALIDATION, TEST = toy_rows(150, seed=1), toy_rows(36, seed=2), toy_rows(36, seed=3)
RUN_DIR = re.compile(r"\d{4}-\d{2}-\d{2}/\d{2}-\d{2}-\d{2}(-\d+)?$")


@pytest.fixture(scope="module")
def config(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    return TrainingConfig(
        model_name=str(tiny_encoder),
        output_dir=str(tmp_path_factory.mktemp("outputs")),
        max_epochs=6,
        batch_size=8,
        max_length=64,
        learning_rate=3e-3,
        lr_scheduler="cosine",
        accelerator="cpu",
        devices=1,
        patience=None,
        precision="32-true",
        threads=1,
    )


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(config: TrainingConfig, lines: list[str]) -> TrainingResult:
    return pipeline.fit(
        TRAIN, VALIDATION, TEST, config, progress=lines.append, show_progress_bar=False
    )


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the export out where only the training is looked at: it takes most of the time."""
    monkeypatch.setattr(finetune, "write_artifact", _write_config)


def _write_config(
    source: ExportSource, directory: Path, *args: Any, **options: Any
) -> dict[str, Any]:
    directory.mkdir(parents=True)
    TransformerConfig(64, "", 0, "native", "tiny", {}).write(directory)
    return {"precision": "fp32", "size_mb": 0.0}


def _fit(config: TrainingConfig, **options: Any) -> TrainingResult:
    return pipeline.fit(TRAIN, VALIDATION, TEST, config, show_progress_bar=False, **options)


def _logged(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_learns_a_separable_set(result: TrainingResult) -> None:
    assert result.metrics["model"]["accuracy"] >= 0.9
    assert result.metrics["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert result.metrics["training"]["best_val_accuracy"] >= 0.9


def test_a_run_leaves_its_files_where_they_are_looked_for(
    result: TrainingResult, config: TrainingConfig
) -> None:
    assert RUN_DIR.search(result.run_dir.as_posix())
    assert result.run_dir.is_relative_to(config.output_dir)
    assert result.artifact_dir == result.run_dir / "artifact"
    names = {path.name for path in result.artifact_dir.iterdir()}
    assert names >= {
        "model.safetensors",
        "model.onnx",
        "tokenizer.json",
        "config.json",
        "metrics.json",
    }
    assert json.loads((result.artifact_dir / "metrics.json").read_text()) == result.metrics
    checkpoints = {path.name for path in (result.run_dir / "checkpoints").iterdir()}
    assert "last.ckpt" in checkpoints
    (best,) = checkpoints - {"last.ckpt"}
    assert re.fullmatch(r"epoch=\d+-step=\d+\.ckpt", best)
    assert result.best_checkpoint is not None
    assert result.best_checkpoint.name == best
    assert not [path for path in result.run_dir.iterdir() if path.name.startswith(".")]


def test_metrics_say_all_there_is_to_say(result: TrainingResult, config: TrainingConfig) -> None:
    assert set(result.metrics) == {"model", "majority", "tfidf_logreg", "serving", "training"}
    training = result.metrics["training"]
    assert training["chosen"] == "transformer"
    assert set(training["candidates"]) == {"transformer"}
    written = TransformerConfig.read(result.artifact_dir)
    assert written.temperature == training["temperature"]
    assert training["epochs"] == 6
    assert 1 <= training["best_epoch"] <= 6
    assert training["monitor"] == "val_accuracy"
    assert training["rows"] == {"train": 150, "validation": 36, "test": 36}
    assert training["precision"] == "32-true"
    assert training["seconds"] > 0
    assert training["hyperparameters"] == config.as_dict()
    assert sum(map(sum, result.metrics["model"]["confusion_matrix"])) == 36
    assert "calibration_error" in result.metrics["model"]


def test_the_csv_file_holds_every_agreed_metric(result: TrainingResult) -> None:
    logged = _logged(result.run_dir)
    for name in (
        "train_loss_step",
        "train_loss_epoch",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "val_macro_f1",
        "test_loss",
        "test_accuracy",
        "test_macro_f1",
    ):
        assert any(row.get(name) for row in logged), name
    tested = [float(row["test_accuracy"]) for row in logged if row["test_accuracy"]]
    assert tested == pytest.approx([result.metrics["model"]["accuracy"]])


def test_where_labels_contradict_each_other_the_heavier_ones_are_learnt(
    config: TrainingConfig, tmp_path: Path, no_export: None
) -> None:
    contradictions = [replace(row, label=2 - row.label) for row in TRAIN]
    accuracies = []
    for right, wrong in ((1.0, 0.1), (0.1, 1.0)):
        result = pipeline.fit(
            [
                *(replace(row, weight=right) for row in TRAIN),
                *(replace(row, weight=wrong) for row in contradictions),
            ],
            VALIDATION,
            TEST,
            replace(config, output_dir=str(tmp_path)),
            show_progress_bar=False,
        )
        accuracies.append(result.metrics["model"]["accuracy"])
    assert accuracies[0] >= 0.9
    assert accuracies[1] <= 0.7


def test_soft_labels_are_what_is_learnt(
    config: TrainingConfig, tmp_path: Path, no_export: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], float]] = []

    def contradict(rows: Sequence[LabelledText], teacher: Any, share: float) -> Any:
        asked.append(([row.text for row in rows], share))
        return np.eye(3, dtype=np.float32)[[2 - row.label for row in rows]]

    monkeypatch.setattr(pipeline, "soft_labels", contradict)
    result = _fit(replace(config, output_dir=str(tmp_path), soft_labels=0.4, monitor="val_loss"))
    assert asked == [([row.text for row in TRAIN], 0.4)]
    # Medium alone is contradicted by nothing.
    assert result.metrics["model"]["per_class"]["high"]["recall"] < 0.5


def test_texts_without_words_are_learnt_from_without_soft_labels(
    config: TrainingConfig, tmp_path: Path, no_export: None
) -> None:
    lines: list[str] = []
    rows = [LabelledText("!" * (1 + row.label), row.label) for row in TRAIN]
    short = replace(config, output_dir=str(tmp_path), max_epochs=1, soft_labels=0.4)
    pipeline.fit(rows, rows, rows, short, progress=lines.append, show_progress_bar=False)
    assert any(line.startswith("There is no linear model") for line in lines)


def test_progress_tells_of_every_epoch(result: TrainingResult, lines: list[str]) -> None:
    epochs = [line for line in lines if line.startswith("Epoch ")]
    assert [line.split(":")[0] for line in epochs] == [f"Epoch {n}/6" for n in range(1, 7)]
    assert all("val_accuracy" in line for line in epochs)


def test_the_artifact_holds_the_best_epoch_not_the_last(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    accuracies = iter([0.2, 0.9, 0.1, 0.1, 0.1])
    log = TicketClassificationModule.log

    def worsening(self: Any, name: str, value: Any, *args: Any, **options: Any) -> None:
        if name != "val_accuracy":
            log(self, name, value, *args, **options)

    written = {}

    def keep(source: ExportSource, *args: Any, **options: Any) -> dict[str, Any]:
        assert not source.model.training
        written.update({name: value.clone() for name, value in source.model.state_dict().items()})
        return _write_config(source, *args, **options)

    monkeypatch.setattr(TicketClassificationModule, "log", worsening)
    monkeypatch.setattr(
        TicketClassificationModule,
        "on_validation_epoch_end",
        lambda self: log(self, "val_accuracy", next(accuracies)),
    )
    monkeypatch.setattr(finetune, "write_artifact", keep)
    result = _fit(replace(config, output_dir=str(tmp_path), max_epochs=5, patience=2))
    training = result.metrics["training"]
    assert training["best_epoch"] == 2
    assert training["epochs"] == 4, "two epochs without a better one end the run"
    checkpoints = result.run_dir / "checkpoints"
    assert result.best_checkpoint == checkpoints / "epoch=1-step=38.ckpt"
    best = torch.load(result.best_checkpoint, weights_only=True)["state_dict"]
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, best[f"model.{name}"]) for name, value in written.items())
    assert not all(torch.equal(value, last[f"model.{name}"]) for name, value in written.items())


def test_the_same_seed_gives_the_same_weights(
    config: TrainingConfig, tmp_path: Path, no_export: None
) -> None:
    short = replace(config, output_dir=str(tmp_path), max_epochs=1)
    states = [
        torch.load(_fit(one).run_dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for one in (short, short, replace(short, seed=7))
    ]
    name = "model.classifier.weight"
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])


def test_a_run_can_be_resumed(config: TrainingConfig, tmp_path: Path, no_export: None) -> None:
    begun = _fit(replace(config, output_dir=str(tmp_path), max_epochs=2))
    checkpoint = begun.run_dir / "checkpoints" / "last.ckpt"
    resumed = replace(config, output_dir=str(tmp_path), max_epochs=4, resume_from=str(checkpoint))
    lines: list[str] = []
    result = _fit(resumed, progress=lines.append)
    assert [line.split(":")[0] for line in lines if "Epoch" in line] == ["Epoch 3/4", "Epoch 4/4"]
    assert result.metrics["training"]["epochs"] == 4
    assert result.run_dir != begun.run_dir
    last = torch.load(result.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 3
    assert last["global_step"] == 4 * 19

    with pytest.raises(TrainingError, match="max_epochs"):
        _fit(replace(resumed, max_epochs=2))
    with pytest.raises(TrainingError, match="trainable_layers"):
        _fit(replace(resumed, trainable_layers=1))
    assert len(list(tmp_path.glob("*/*"))) == 2, "what cannot be resumed leaves no folder"


def test_resuming_keeps_an_earlier_epoch_that_was_better(
    config: TrainingConfig, tmp_path: Path, no_export: None
) -> None:
    begun = _fit(replace(config, output_dir=str(tmp_path), max_epochs=4))
    ruinous = replace(
        config,
        output_dir=str(tmp_path),
        max_epochs=5,
        resume_from=str(begun.run_dir / "checkpoints" / "last.ckpt"),
    )
    ruined = torch.load(str(ruinous.resume_from), weights_only=True)
    for value in ruined["state_dict"].values():
        value.zero_()
    torch.save(ruined, str(ruinous.resume_from))
    result = _fit(ruinous)
    assert result.best_checkpoint == begun.best_checkpoint
    assert result.metrics["model"]["accuracy"] == begun.metrics["model"]["accuracy"]


def test_a_checkpoint_that_cannot_be_resumed_is_named(
    config: TrainingConfig, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="no/such.ckpt"):
        _fit(replace(config, resume_from="no/such.ckpt"))
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="broken.ckpt cannot be read"):
        _fit(replace(config, resume_from=str(broken)))


@pytest.mark.parametrize("line", ["Epoch 1", "Fitting the baselines"])
def test_ctrl_c_ends_the_run_without_an_artifact(
    config: TrainingConfig, tmp_path: Path, line: str, no_export: None
) -> None:
    def interrupt(told: str) -> None:
        if told.startswith(line):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        _fit(replace(config, output_dir=str(tmp_path)), progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    (run_dir,) = tmp_path.glob("*/*")
    assert {path.name for path in run_dir.iterdir()} <= {
        "checkpoints",
        "hparams.yaml",
        "metrics.csv",
    }


def test_a_failing_export_leaves_no_artifact(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: ExportSource, directory: Path, *args: Any, **options: Any) -> None:
        directory.mkdir(parents=True)
        (directory / "model.onnx").write_bytes(b"half")
        raise TrainingError("the export failed")

    monkeypatch.setattr(finetune, "write_artifact", fail)
    with pytest.raises(TrainingError, match="the export failed"):
        _fit(replace(config, output_dir=str(tmp_path), max_epochs=1))
    assert not list(tmp_path.rglob("model.onnx"))
    assert not list(tmp_path.rglob("artifact*"))
    assert not list(tmp_path.rglob(".members"))


@pytest.mark.parametrize(
    ("after", "free_bytes"),
    [
        ("Training on", 10),
        ("Training on", 5_000),
        ("Exporting", 1_000),
        ("Fitting the baselines", 1_000),
    ],
    ids=["metrics.csv", "checkpoint", "export", "artifact"],
)
def test_a_disk_that_fills_up_is_named_and_leaves_no_artifact(
    config: TrainingConfig, tmp_path: Path, after: str, free_bytes: int
) -> None:
    config = replace(
        config, output_dir=str(tmp_path), max_epochs=1, few_labels=0, quantize=False, ensemble=False
    )
    with ExitStack() as filled:

        def fill(line: str) -> None:
            if line.startswith(after):
                filled.enter_context(full_disk(free_bytes))

        with pytest.raises(TrainingError, match="ree space and") as caught:
            fit(TRAIN, VALIDATION, TEST, config, progress=fill, show_progress_bar=False)
    assert "File too large" in str(caught.value)
    assert len(str(caught.value).split(str(tmp_path))) <= 4, "more than one file is named"
    assert not list(tmp_path.rglob("artifact"))
    assert not [*tmp_path.glob("*/.*"), *tmp_path.glob("*/*/.*")]


def test_an_unwritable_output_folder_is_named(config: TrainingConfig, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(TrainingError, match=f"output folder {taken}"):
        _fit(replace(config, output_dir=str(taken)))
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    (tmp_path / "nowhere").write_text("a file")
    with pytest.raises(TrainingError, match=f"output folder {dangling}"):
        _fit(replace(config, output_dir=str(dangling)))


def test_runs_of_the_same_second_get_folders_of_their_own(
    config: TrainingConfig, tmp_path: Path
) -> None:
    folders = []
    for _ in range(4):
        with run_directory(replace(config, output_dir=str(tmp_path))) as folder:
            folders.append(folder)
    assert len(set(folders)) == 4
    assert all(RUN_DIR.search(folder.as_posix()) for folder in folders)


@pytest.mark.parametrize("empty", ["train", "validation", "test"])
def test_an_empty_split_is_named(config: TrainingConfig, empty: str) -> None:
    splits: dict[str, Any] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    with pytest.raises(TrainingError, match=f"The {empty} split is empty"):
        pipeline.fit(**(splits | {empty: []}), config=config)


def test_an_impossible_machine_is_a_training_error(config: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="accelerator"):
        _fit(replace(config, output_dir=str(tmp_path), accelerator="tpu-of-tomorrow"))


@pytest.mark.parametrize("devices", ["0,1", "foo", "00"])
def test_devices_that_a_cpu_has_not_are_a_training_error(
    config: TrainingConfig, tmp_path: Path, devices: str
) -> None:
    with pytest.raises(TrainingError, match="Check accelerator, devices"):
        _fit(replace(config, output_dir=str(tmp_path), devices=devices))


def test_two_processes_train_together_and_one_writes(
    config: TrainingConfig, tmp_path: Path, no_export: None
) -> None:
    result = _fit(replace(config, output_dir=str(tmp_path), devices=2, batch_size=4, max_epochs=3))
    assert result.metrics["training"]["epochs"] == 3
    assert result.metrics["model"]["accuracy"] > 0.5
    assert len(list(tmp_path.rglob("metrics.json"))) == 1
    steps = torch.load(result.run_dir / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert steps == 3 * 19, "each process takes half of the 150 rows, in batches of four"
    assert any(row.get("val_accuracy") for row in _logged(result.run_dir))


def test_weights_and_biases_works_offline(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_export: None
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = _fit(
        replace(
            config,
            output_dir=str(tmp_path),
            max_epochs=1,
            wandb_project="tickets",
            wandb_mode="offline",
        )
    )
    (stored,) = result.run_dir.rglob("wandb/offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    for name in (b"val_accuracy", b"train_loss", b"test_accuracy"):
        assert name in content
    assert (result.run_dir / "metrics.csv").is_file()


def test_weights_and_biases_that_is_not_installed_is_named(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainingError, match=r"django-ticket-priority\[wandb\]"):
        _fit(replace(config, output_dir=str(tmp_path), wandb_project="tickets"))


def test_lightning_keeps_quiet_and_its_settings_come_back(
    config: TrainingConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    no_export: None,
) -> None:
    before = logging.getLogger("lightning.pytorch").level, torch.get_num_threads()
    _fit(replace(config, output_dir=str(tmp_path), max_epochs=1))
    assert (logging.getLogger("lightning.pytorch").level, torch.get_num_threads()) == before
    out, err = capfd.readouterr()
    assert "GPU available" not in out + err
    assert "Tip" not in out + err
    assert not re.search(r"Trainer.fit.*stopped", out + err)


def test_precision_follows_the_hardware(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = replace(config, precision="auto", accelerator="auto")
    assert hardware.precision(config) == "32-true"

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for features, gain, expected in (
        ({"avx512_bf16": True}, 2.0, "bf16-mixed"),
        ({"avx512_bf16": True}, 0.5, "32-true"),
        ({"amx_bf16": True}, 2.0, "bf16-mixed"),
        ({"avx2": True, "avx512_bf16": False}, 2.0, "32-true"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features)
        monkeypatch.setattr(hardware, "bf16_gain", lambda gain=gain: gain)
        assert hardware.precision(auto) == expected

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native
        )
        assert hardware.precision(auto) == expected
        assert hardware.precision(replace(auto, accelerator="cpu")) == "32-true"


@pytest.fixture
def float16(config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a configuration that trains in float16, which Lightning leaves to GPUs by itself."""

    def build(**options: Any) -> Trainer:
        plugin = MixedPrecision("16-mixed", "cpu")
        return Trainer(**options | {"precision": None, "plugins": [plugin]})

    monkeypatch.setattr(loop, "Trainer", build)
    return replace(config, output_dir=str(tmp_path), precision="16-mixed")


def test_float16_learns_where_it_holds_the_gradients(
    float16: TrainingConfig, no_export: None
) -> None:
    result = _fit(float16)
    assert result.metrics["training"]["precision"] == "16-mixed"
    assert result.metrics["model"]["accuracy"] >= 0.9


def test_gradients_that_float16_cannot_hold_end_the_run(
    float16: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinal_loss = losses.ordinal_loss
    monkeypatch.setattr(
        losses, "ordinal_loss", lambda *args, **options: ordinal_loss(*args, **options) * 1e9
    )
    with pytest.raises(TrainingError, match=r"float16.*bf16-mixed.*32-true"):
        _fit(float16)
    assert not list(Path(float16.output_dir).rglob("artifact"))


def test_the_gain_by_bf16_is_measured_and_leaves_the_threads_alone() -> None:
    threads = torch.get_num_threads()
    assert 0 < hardware.bf16_gain(rounds=2) < 100
    assert torch.get_num_threads() == threads


def test_bf16_on_this_cpu_learns_as_well(
    config: TrainingConfig, tmp_path: Path, no_export: None
) -> None:
    result = _fit(replace(config, output_dir=str(tmp_path), precision="bf16-mixed"))
    assert result.metrics["model"]["accuracy"] >= 0.9


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a CUDA device: run `pytest -m gpu tests/ml` on a machine that has one",
)
def test_mixed_precision_on_cuda(config: TrainingConfig, tmp_path: Path, no_export: None) -> None:
    on_gpu = replace(config, output_dir=str(tmp_path), accelerator="gpu", precision="auto")
    result = _fit(on_gpu)
    assert result.metrics["training"]["precision"] in ("bf16-mixed", "32-true")
    assert result.metrics["model"]["accuracy"] >= 0.9
    weights = torch.load(result.best_checkpoint or "", weights_only=True)["state_dict"]
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_the_extra_is_named_where_it_is_missing(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(
        TrainingError, match=r'lightning must be.*pip install "django-ticket-priority\[ml\]"'
    ):
        fit(TRAIN, VALIDATION, TEST, config)


def test_several_seeds_and_a_linear_model_are_published_as_one(
    config: TrainingConfig, tmp_path: Path
) -> None:
    """The rows that the figures were measured on get the same answers from the artifact."""
    lines: list[str] = []
    # Too few epochs for either transformer to be right about everything by itself.
    short = replace(
        config, output_dir=str(tmp_path), max_epochs=2, seeds=2, ensemble=True, monitor="val_loss"
    )
    result = _fit(short, progress=lines.append)
    training = result.metrics["training"]
    assert set(training["candidates"]) == {"tfidf_logreg", "transformer", "ensemble"}
    losses = {name: figures["val_loss"] for name, figures in training["candidates"].items()}
    assert training["chosen"] == min(losses, key=lambda name: losses[name])
    assert any(line.startswith(training["chosen"]) and "chosen" in line for line in lines)
    assert {"transformer", "tfidf_logreg"} <= set(result.metrics)
    for number in (1, 2):
        assert (result.run_dir / f"transformer-{number}" / "metrics.csv").is_file()
    assert not (result.run_dir / ".members").exists()
    kinds = {
        "tfidf_logreg": LinearClassifier,
        "transformer": EnsembleClassifier,
        "ensemble": EnsembleClassifier,
    }
    classifier = kinds[training["chosen"]](result.artifact_dir, threads=1)
    answers = classifier.classify([row.text for row in TEST])
    served = metrics.report(
        [row.label for row in TEST], probabilities=[answer.probabilities for answer in answers]
    )
    assert served["accuracy"] == pytest.approx(result.metrics["model"]["accuracy"], abs=0.06)
    assert served["calibration_error"] == pytest.approx(
        result.metrics["model"]["calibration_error"], abs=0.1
    )
