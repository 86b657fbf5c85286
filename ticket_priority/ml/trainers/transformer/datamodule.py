"""Texts as batches of token ids: tokenised once, and bucketed by length to pad little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from transformers import PreTrainedTokenizerFast

from ticket_priority.ml.batching import padded
from ticket_priority.ml.types import MAX_TOKENS, LabelledText

_TOKENISE_AT_ONCE = 1000
_LENGTH_NOISE = 0.4
"""Less noise means less padding; but measured, batches of more equal lengths teach less."""


class TicketDataModule(LightningDataModule):
    """Batches of labelled texts for training, validation, testing and prediction.

    `prefix` is put before every text, which is cut at `max_length` tokens. A batch holds
    `input_ids` and `attention_mask` [batch, seq] and `labels` [batch], all int64, padded to its
    longest text; it has at most `batch_size` rows on each device. `rows` [batch] are the numbers of
    its texts, counted over all splits. Where the rows of a split differ in weight, it holds
    `weights` [batch] too, float32 with a mean of 1 over the split; `balanced` gives each class of
    the training split the same total weight. `soft_labels` [rows, classes] are for the training
    split, whose batches then hold their rows of it, float32 [batch, classes].
    Training batches hold texts of similar length, drawn from `seed` and the epoch; the other
    loaders are ordered by length, shortest first.
    """

    def __init__(
        self,
        train: Sequence[LabelledText],
        validation: Sequence[LabelledText],
        test: Sequence[LabelledText],
        tokenizer: PreTrainedTokenizerFast,
        prefix: str = "",
        batch_size: int = 32,
        max_length: int = MAX_TOKENS,
        seed: int = 42,
        num_workers: int = 0,
        *,
        balanced: bool = False,
        soft_labels: npt.NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__()
        self.balanced = balanced
        self.soft_labels = soft_labels
        self.batch_size = batch_size
        self.max_length = max_length
        self.seed = seed
        self.num_workers = num_workers
        self.prefix = prefix
        self.tokenizer = tokenizer
        self._rows = {"train": train, "validation": validation, "test": test}
        self._tokenised: dict[str, TokenisedTexts] = {}

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the batches of the training split, shuffled."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the batches of the validation split."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the batches of the test split."""
        return self._loader("test")

    predict_dataloader = test_dataloader

    def dataset(self, split: str) -> TokenisedTexts:
        """Return "train", "validation" or "test" as token ids; tokenise at the first call."""
        if split not in self._tokenised:
            before = list(self._rows).index(split)
            self._tokenised[split] = TokenisedTexts(
                self._rows[split],
                self.tokenizer,
                self.prefix,
                self.max_length,
                balanced=self.balanced and split == "train",
                soft_labels=self.soft_labels if split == "train" else None,
                first_row=sum(len(rows) for rows in list(self._rows.values())[:before]),
            )
        return self._tokenised[split]

    def _loader(self, split: str, *, shuffle: bool = False) -> DataLoader[dict[str, Tensor]]:
        dataset = self.dataset(split)
        sampler = LengthBucketSampler(
            dataset,
            self.batch_size,
            num_replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
            shuffle=shuffle,
            seed=self.seed,
        )
        loader: DataLoader[Any] = DataLoader(
            dataset,
            # The sampler yields whole batches, so the loader must not batch again.
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
        return loader


class TokenisedTexts(Dataset[dict[str, Tensor]]):
    """Token ids and class ids. Indexed by a list of rows, it returns one padded batch."""

    def __init__(
        self,
        rows: Sequence[LabelledText],
        tokenizer: PreTrainedTokenizerFast,
        prefix: str,
        max_length: int,
        *,
        balanced: bool = False,
        soft_labels: npt.NDArray[np.float32] | None = None,
        first_row: int = 0,
    ) -> None:
        self.first_row = first_row
        self.soft_labels = soft_labels
        self.labels = np.empty(len(rows), dtype=np.int64)
        weights = np.ones(len(rows), dtype=np.float32)
        self.ids: list[np.ndarray[Any, np.dtype[np.int32]]] = []
        for start in range(0, len(rows), _TOKENISE_AT_ONCE):
            # Rows may be read from disk, so each is taken once.
            batch = rows[start : start + _TOKENISE_AT_ONCE]
            self.labels[start : start + len(batch)] = [row.label for row in batch]
            weights[start : start + len(batch)] = [row.weight for row in batch]
            encoded = tokenizer(
                [prefix + row.text for row in batch],
                truncation=True,
                max_length=max_length,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
            self.ids += [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]
        if balanced:
            weights /= np.bincount(self.labels, weights=weights)[self.labels]
        # With a mean of 1, weights do not change the learning rate.
        self.weights = None if (weights == weights[:1]).all() else weights / weights.mean()
        self.lengths = np.array([len(ids) for ids in self.ids], dtype=np.int64)
        pad = tokenizer.pad_token_id
        self.pad_id = pad if isinstance(pad, int) else 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        ids, mask = padded([self.ids[row] for row in rows], self.pad_id)
        batch = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(self.labels[list(rows)]),
            "rows": torch.tensor(list(rows)) + self.first_row,
        }
        if self.soft_labels is not None:
            batch["soft_labels"] = torch.from_numpy(self.soft_labels[list(rows)])
        if self.weights is not None:
            batch["weights"] = torch.from_numpy(self.weights[list(rows)])
        return batch


class LengthBucketSampler(DistributedSampler[list[int]]):
    """Gives each device its batches of rows of similar length.

    Every device gets the same number of batches, whose sizes differ by at most one row, so no
    device waits for another and no row is seen twice in an epoch. As a DistributedSampler it is
    kept by Lightning, which sets its epoch.
    """

    def __init__(
        self,
        dataset: TokenisedTexts,
        batch_size: int,
        *,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle, seed)
        self.lengths = dataset.lengths
        self.num_batches = -(-len(dataset) // (batch_size * num_replicas))

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        lengths = self.lengths.astype(np.float64)
        draw = np.random.default_rng([self.seed, self.epoch])
        if self.shuffle:
            # Noise on the length gives each epoch other batches, with little more padding.
            lengths *= draw.uniform(1 - _LENGTH_NOISE, 1 + _LENGTH_NOISE, len(lengths))
        order = np.argsort(lengths, kind="stable")
        pieces = self.num_batches * self.num_replicas
        if len(order) < pieces:
            order = np.resize(order, pieces)
        batches = np.array_split(order, pieces)
        turns = draw.permutation(self.num_batches) if self.shuffle else range(self.num_batches)
        for turn in turns:
            yield batches[turn * self.num_replicas + self.rank].tolist()
