from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from tests.ml.conftest import tiny_tokenizer, toy_rows
from ticket_priority.ml.trainers.transformer.datamodule import (
    LengthBucketSampler,
    TicketDataModule,
    TokenisedTexts,
)
from ticket_priority.ml.types import LabelledText


def _data(rows: list[LabelledText], **options: object) -> TicketDataModule:
    settings: dict[str, object] = {"batch_size": 8, "max_length": 64, "seed": 3} | options
    return TicketDataModule(rows, rows[:20], rows[:10], tiny_tokenizer(), **settings)  # type: ignore[arg-type]


def _rows_of(loader: DataLoader[dict[str, Tensor]]) -> list[list[int]]:
    assert loader.sampler is not None
    return [list(rows) for rows in loader.sampler]  # type: ignore[call-overload]


def test_a_batch_is_padded_to_its_longest_text() -> None:
    texts = ["fire", "fire down team", "please fire"]
    dataset = TokenisedTexts([LabelledText(t, 2) for t in texts], tiny_tokenizer(), "", 64)
    batch = dataset[[0, 1]]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 5)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["input_ids"][0, 3:].tolist() == [0, 0]
    assert batch["labels"].tolist() == [2, 2]
    assert {value.dtype for value in batch.values()} == {torch.int64}


def test_weights_have_a_mean_of_one_and_are_left_out_where_all_are_the_same() -> None:
    rows = [
        replace(row, weight=weight)
        for row, weight in zip(toy_rows(4, 1), (1, 1, 2, 4), strict=True)
    ]
    weights = TokenisedTexts(rows, tiny_tokenizer(), "", 64)[[3, 0]]["weights"]
    assert weights.tolist() == [2.0, 0.5]
    same = [replace(row, weight=3.0) for row in rows]
    assert "weights" not in TokenisedTexts(same, tiny_tokenizer(), "", 64)[[0]]


def test_soft_labels_are_the_training_split_s_alone() -> None:
    rows = toy_rows(40, 1)
    soft = np.random.default_rng(0).dirichlet((1, 1, 1), len(rows)).astype(np.float32)
    data = _data(rows, soft_labels=soft)
    batch = data.dataset("train")[[7, 3]]
    assert batch["soft_labels"].tolist() == soft[[7, 3]].tolist()
    assert batch["labels"].tolist() == [rows[7].label, rows[3].label]
    assert "soft_labels" not in data.dataset("validation")[[0]]


def test_texts_are_prefixed_and_cut_at_max_length() -> None:
    tokenizer = tiny_tokenizer()
    row = LabelledText("fire " * 50, 2)
    (ids,) = TokenisedTexts([row], tokenizer, "please ", 10).ids
    assert len(ids) == 10
    assert ids[1] == tokenizer.convert_tokens_to_ids("please")
    assert ids[-1] == tokenizer.sep_token_id


def test_an_empty_text_is_still_a_batch() -> None:
    dataset = TokenisedTexts([LabelledText("", 0)], tiny_tokenizer(), "", 64)
    assert dataset[[0]]["input_ids"].shape == (1, 2)


def test_training_sees_every_row_once_an_epoch_in_an_order_of_its_own() -> None:
    rows = toy_rows(50, seed=1)
    loader = _data(rows).train_dataloader()
    epochs = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        epochs.append(_rows_of(loader))
    for batches in epochs:
        assert sorted(row for batch in batches for row in batch) == list(range(50))
        assert max(map(len, batches)) <= 8
    assert {frozenset(batch) for batch in epochs[0]} != {frozenset(batch) for batch in epochs[1]}
    again = _data(rows).train_dataloader()
    assert _rows_of(again) == epochs[0]
    assert _rows_of(_data(rows, seed=4).train_dataloader()) != epochs[0]


def test_buckets_need_far_less_padding_than_a_plain_shuffle() -> None:
    # As in a helpdesk, one ticket is ten times as long as another.
    rows = [
        replace(row, text=" ".join([row.text] * (1 + place % 10)))
        for place, row in enumerate(toy_rows(400, seed=1))
    ]
    data = _data(rows)
    lengths = data.dataset("train").lengths

    def padding(batches: list[list[int]]) -> int:
        return sum(int(lengths[b].max() * len(b) - lengths[b].sum()) for b in batches)

    shuffled = np.random.default_rng(0).permutation(400).reshape(50, 8).tolist()
    assert padding(_rows_of(data.train_dataloader())) < 0.5 * padding(shuffled)


def test_evaluation_goes_by_length_and_in_the_same_order_every_time() -> None:
    data = _data(toy_rows(60, seed=1))
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        widths = [batch["input_ids"].shape[1] for batch in loader]
        assert widths == sorted(widths)
        assert _rows_of(loader) == _rows_of(loader)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("count", [1, 2, 17, 33, 64])
def test_devices_share_the_rows_and_get_equally_many_batches(count: int, shuffle: bool) -> None:
    dataset = TokenisedTexts(toy_rows(count, seed=1), tiny_tokenizer(), "", 64)
    shards = []
    for rank in range(3):
        sampler = LengthBucketSampler(
            dataset, 8, num_replicas=3, rank=rank, shuffle=shuffle, seed=7
        )
        shards.append(list(sampler))
        assert len(shards[-1]) == len(sampler)
    assert len({len(shard) for shard in shards}) == 1
    batches = [batch for shard in shards for batch in shard]
    assert all(1 <= len(batch) <= 8 for batch in batches)
    seen = Counter(row for batch in batches for row in batch)
    assert set(seen) == set(range(count))
    if count >= 3:
        assert set(seen.values()) == {1}


def test_texts_are_tokenised_once(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    rows = toy_rows(20, seed=1)
    data = TicketDataModule(rows, rows, rows, tokenizer, batch_size=4, max_length=64)
    assert data.dataset("train") is data.dataset("train")
    assert data.train_dataloader().dataset is data.dataset("train")


def test_worker_processes_give_the_same_batches() -> None:
    rows = toy_rows(20, seed=1)
    alone = list(_data(rows).val_dataloader())
    helped = list(_data(rows, num_workers=1).val_dataloader())
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
