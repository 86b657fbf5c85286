from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torchmetrics.functional.classification import multiclass_accuracy

from tests.ml.conftest import tiny_tokenizer, toy_rows
from ticket_priority.exceptions import EncoderUnavailableError
from ticket_priority.ml.trainers.transformer.datamodule import TicketDataModule
from ticket_priority.ml.trainers.transformer.module import TicketClassificationModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
]

LOAD_AND_SCORE = """
import json, sys
import torch
from ticket_priority.ml.trainers.transformer.module import TicketClassificationModule
module = TicketClassificationModule.load_from_checkpoint(
    sys.argv[1], local_files_only=True, map_location="cpu", weights_only=True
).eval()
ids = torch.tensor([[2, 7, 9, 20, 3]])
print(json.dumps(module(ids, torch.ones_like(ids)).logits[0].tolist()))
"""


@pytest.fixture
def module(tiny_encoder: Path) -> TicketClassificationModule:
    return TicketClassificationModule(str(tiny_encoder))


def _fitted(
    module: TicketClassificationModule, folder: Path, *, rows: int = 32, **options: Any
) -> tuple[Trainer, TicketDataModule]:
    data = TicketDataModule(
        toy_rows(rows, seed=1),
        toy_rows(12, seed=2),
        toy_rows(12, seed=3),
        tiny_tokenizer(),
        batch_size=8,
        max_length=64,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **({"logger": False, "enable_checkpointing": False} | options),
    )
    trainer.fit(module, datamodule=data)
    return trainer, data


def test_forward_gives_logits_and_with_labels_a_loss(module: TicketClassificationModule) -> None:
    ids = torch.randint(5, 80, (4, 9))
    mask = torch.ones_like(ids)
    without = module(ids, mask)
    assert without.logits.shape == (4, 3)
    assert without.loss is None
    labelled = module.eval()(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 1, 2, 1]))
    assert labelled.loss.shape == ()
    expected = torch.nn.functional.cross_entropy(labelled.logits, torch.tensor([0, 1, 2, 1]))
    assert torch.allclose(labelled.loss, expected)


def test_padding_does_not_change_the_answer(module: TicketClassificationModule) -> None:
    module.eval()
    ids = torch.tensor([[2, 7, 9, 20, 3]])
    padded = torch.nn.functional.pad(ids, (0, 6))
    short = module(ids, torch.ones_like(ids)).logits
    long = module(padded, (padded != 0).long()).logits
    assert torch.allclose(short, long, atol=1e-5)


def test_metrics_carry_their_agreed_names(
    module: TicketClassificationModule, tmp_path: Path
) -> None:
    trainer, data = _fitted(module, tmp_path)
    logged = set(trainer.callback_metrics)
    assert logged >= {
        "train_loss",
        "train_loss_step",
        "train_loss_epoch",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "val_macro_f1",
    }
    (figures,) = trainer.test(module, datamodule=data, verbose=False)
    assert set(figures) == {"test_loss", "test_accuracy", "test_macro_f1"}


def test_accuracy_counts_rows_not_classes(
    module: TicketClassificationModule, tmp_path: Path
) -> None:
    trainer, data = _fitted(module, tmp_path)
    (figures,) = trainer.test(module, datamodule=data, verbose=False)
    module.eval()
    hits = total = 0
    for batch in data.test_dataloader():
        chosen = module(batch["input_ids"], batch["attention_mask"]).logits.argmax(-1)
        hits += int((chosen == batch["labels"]).sum())
        total += len(chosen)
    assert figures["test_accuracy"] == pytest.approx(hits / total)
    assert module.val_accuracy.average == "micro"
    unbalanced = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 2])
    module.test_accuracy.reset()
    assert float(module.test_accuracy(*unbalanced)) == 0.75
    assert float(multiclass_accuracy(*unbalanced, num_classes=3)) != 0.75


def test_biases_and_norms_do_not_decay_and_the_head_has_its_rate(tiny_encoder: Path) -> None:
    module = TicketClassificationModule(
        str(tiny_encoder), learning_rate=1e-5, weight_decay=0.1, head_learning_rate=1e-3
    )
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    settings = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in module.model.named_parameters():
        rate, decay = settings.pop(id(parameter))
        plain = name.endswith("bias") or "LayerNorm" in name
        assert decay == (0.0 if plain else 0.1), name
        assert rate == (1e-3 if name.startswith(("classifier", "bert.pooler")) else 1e-5), name
    assert not settings


def test_only_the_chosen_layers_train(tiny_encoder: Path) -> None:
    module = TicketClassificationModule(str(tiny_encoder), trainable_layers=1)
    training = {name for name, p in module.model.named_parameters() if p.requires_grad}
    assert any(name.startswith("bert.encoder.layer.1.") for name in training)
    assert "classifier.weight" in training
    assert not any(".layer.0." in name or "embeddings" in name for name in training)
    groups = module.configure_optimizers().param_groups  # type: ignore[union-attr]
    assert sum(len(group["params"]) for group in groups) == len(training)


def test_lower_layers_take_smaller_steps(tiny_encoder: Path) -> None:
    module = TicketClassificationModule(
        str(tiny_encoder), learning_rate=1e-3, head_learning_rate=1e-2, layer_decay=0.5
    )
    groups = module.configure_optimizers().param_groups  # type: ignore[union-attr]
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    found = {name: rates[id(value)] for name, value in module.model.named_parameters()}
    assert found["classifier.weight"] == 1e-2
    assert found["bert.encoder.layer.1.output.dense.weight"] == 1e-3
    assert found["bert.encoder.layer.0.output.dense.weight"] == 5e-4
    assert found["bert.embeddings.word_embeddings.weight"] == 2.5e-4


@pytest.mark.parametrize("warmup", [{"warmup_ratio": 0.5}, {"warmup_steps": 2}])
def test_cosine_schedule_warms_up_and_ends_at_zero(
    tiny_encoder: Path, tmp_path: Path, warmup: dict[str, Any]
) -> None:
    seen: list[float] = []

    class Recording(TicketClassificationModule):
        def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
            seen.append(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
            return super().training_step(batch, batch_idx)

    module = Recording(
        str(tiny_encoder), learning_rate=1.0, lr_scheduler_config={"name": "cosine", **warmup}
    )
    trainer, _ = _fitted(module, tmp_path)
    assert seen == pytest.approx([0.0, 0.5, 1.0, 0.5])
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0] == pytest.approx(0.0)


@pytest.mark.parametrize(
    "schedule",
    [
        {},
        {"name": "linear"},
        {"name": "cosine", "warmup": 3},
        {"name": "cosine", "warmup_ratio": 1.0},
        {"name": "cosine", "warmup_ratio": "0.1"},
        {"name": "cosine", "warmup_steps": -1},
        {"name": "cosine", "warmup_steps": 1, "warmup_ratio": 0.1},
        "cosine",
    ],
)
def test_a_bad_schedule_is_a_value_error(tiny_encoder: Path, schedule: Any) -> None:
    with pytest.raises(ValueError, match="lr_scheduler_config"):
        TicketClassificationModule(str(tiny_encoder), lr_scheduler_config=schedule)


def test_a_missing_base_model_is_named() -> None:
    with pytest.raises(EncoderUnavailableError, match="/no/such/folder"):
        TicketClassificationModule("/no/such/folder")


def test_a_checkpoint_loads_without_network_or_base_model(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_encoder, base)
    module = TicketClassificationModule(
        str(base), lr_scheduler_config={"name": "cosine", "warmup_ratio": 0.1}, trainable_layers=1
    )
    trainer, _ = _fitted(module, tmp_path)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    shutil.rmtree(base)
    ids = torch.tensor([[2, 7, 9, 20, 3]])
    expected = module.eval()(ids, torch.ones_like(ids)).logits[0]

    answer = subprocess.run(
        [sys.executable, "-c", LOAD_AND_SCORE, str(tmp_path / "saved.ckpt")],
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty"), "PATH": ""},
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    logits = json.loads(answer.stdout.splitlines()[-1])
    assert logits == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_checkpoint_says_how_its_epoch_validated(
    module: TicketClassificationModule, tmp_path: Path
) -> None:
    trainer, _ = _fitted(module, tmp_path)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    accuracy = saved["validation_metrics"]["val_accuracy"]
    assert accuracy == pytest.approx(float(trainer.callback_metrics["val_accuracy"]))
    assert math.isfinite(saved["validation_metrics"]["val_loss"])
    json.dumps(saved["hyper_parameters"])
