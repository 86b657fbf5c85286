from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.ml.conftest import toy_rows
from ticket_priority.ml.trainers.encoders.build import load_tokenizer
from ticket_priority.ml.trainers.encoders.layers import frozen_layers
from ticket_priority.ml.trainers.encoders.resolve import resolve
from ticket_priority.ml.trainers.pipeline import fit
from ticket_priority.ml.trainers.runs.splits import Splits
from ticket_priority.ml.trainers.transformer import activation_cache
from ticket_priority.ml.trainers.transformer.activation_cache import ActivationCache
from ticket_priority.ml.trainers.transformer.datamodule import TicketDataModule
from ticket_priority.ml.trainers.transformer.finetune import TransformerRun
from ticket_priority.ml.trainers.transformer.module import TicketClassificationModule
from ticket_priority.ml.types import TrainingConfig

TRAIN, VALIDATION, TEST = toy_rows(40, seed=1), toy_rows(12, seed=2), toy_rows(12, seed=3)


@pytest.fixture
def module(tiny_encoder: Path) -> TicketClassificationModule:
    return TicketClassificationModule(str(tiny_encoder), trainable_layers=1).eval()


@pytest.fixture
def data(tiny_encoder: Path) -> TicketDataModule:
    tokenizer = load_tokenizer(resolve(str(tiny_encoder)))
    return TicketDataModule(TRAIN, VALIDATION, TEST, tokenizer, batch_size=4)


def answers(module: TicketClassificationModule, batch: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        return module.predict_step(batch, 0)


@pytest.fixture
def computed(module: TicketClassificationModule, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts the lower layer has computed, by batch."""
    (frozen,) = frozen_layers(module.model)
    counted: list[int] = []
    forward = frozen.forward

    def count(hidden: Tensor, *args: Any, **options: Any) -> Any:
        counted.append(len(hidden))
        return forward(hidden, *args, **options)

    monkeypatch.setattr(frozen, "forward", count)
    return counted


def test_a_known_batch_is_recalled_and_answered_alike(
    module: TicketClassificationModule, data: TicketDataModule, computed: list[int]
) -> None:
    train = data.dataset("train")
    first, others, mixed = train[[0, 1, 2]], train[[3, 4]], train[[1, 2, 4]]
    expected = answers(module, mixed)
    computed.clear()
    module.activation_cache = ActivationCache(torch.float32)
    with module.activation_cache.attached(module.model):
        before = answers(module, first)
        answers(module, others)
        assert computed == [3, 2]
        assert torch.allclose(answers(module, mixed), expected, atol=1e-6)
        assert torch.allclose(answers(module, first), before, atol=1e-6)
        assert computed == [3, 2]
        answers(module, train[[0, 5]])
        assert computed == [3, 2, 2]
    answers(module, first)
    assert computed == [3, 2, 2, 3]


def test_rows_of_two_splits_are_not_mistaken_for_each_other(
    module: TicketClassificationModule, data: TicketDataModule, computed: list[int]
) -> None:
    splits = [data.dataset(name)[[0, 1]] for name in ("train", "validation", "test")]
    numbers = [number for batch in splits for number in batch["rows"].tolist()]
    assert numbers == [0, 1, 40, 41, 52, 53]
    expected = [answers(module, batch) for batch in splits]
    computed.clear()
    module.activation_cache = ActivationCache(torch.float32)
    with module.activation_cache.attached(module.model):
        for _ in range(2):
            for batch, known in zip(splits, expected, strict=True):
                assert torch.allclose(answers(module, batch), known, atol=1e-6)
    assert computed == [2, 2, 2]


def test_the_weights_keep_their_names(module: TicketClassificationModule) -> None:
    names = list(module.state_dict())
    with ActivationCache(torch.float32).attached(module.model):
        assert list(module.state_dict()) == names


def test_what_is_too_much_is_not_kept() -> None:
    lengths = [np.array([100, 200]), np.array([300])]
    cache = ActivationCache(torch.bfloat16)
    width = activation_cache.MOST_BYTES // 600 // 2
    assert cache.fits(lengths, width)
    assert not cache.fits(lengths, width + 1)
    assert not ActivationCache(torch.float32).fits(lengths, width)


@pytest.fixture
def config(tiny_encoder: Path, tmp_path: Path) -> TrainingConfig:
    return TrainingConfig(
        model_name=str(tiny_encoder),
        output_dir=str(tmp_path),
        max_epochs=3,
        batch_size=8,
        max_length=64,
        learning_rate=3e-3,
        trainable_layers=1,
        accelerator="cpu",
        devices=1,
        precision="32-true",
        threads=1,
        seeds=2,
        quantize=False,
    )


def test_training_learns_the_same_and_computes_each_text_once(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    keep = ActivationCache._write
    monkeypatch.setattr(
        ActivationCache,
        "_write",
        lambda self, output: (kept.extend(self._rows), keep(self, output))[1],
    )
    cached = fit(TRAIN, VALIDATION, TEST, config, show_progress_bar=False)
    assert sorted(kept) == list(range(len(TRAIN) + len(VALIDATION)))
    monkeypatch.setattr(activation_cache, "MOST_BYTES", 0)
    uncached = fit(
        TRAIN,
        VALIDATION,
        TEST,
        replace(config, output_dir=str(tmp_path / "uncached")),
        show_progress_bar=False,
    )
    assert sorted(kept) == list(range(len(TRAIN) + len(VALIDATION)))
    for name in ("val_loss", "val_accuracy"):
        losses = [
            run.metrics["training"]["candidates"]["transformer"][name] for run in (cached, uncached)
        ]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_run_that_trains_everything_keeps_nothing(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ActivationCache, "rows_of", None)
    run = TransformerRun(
        replace(config, trainable_layers=None, max_epochs=1), tmp_path, print, False
    )
    assert run.train(Splits(TRAIN, VALIDATION, TEST)) is not None
