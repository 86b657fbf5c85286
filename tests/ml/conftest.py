"""A tiny random encoder and a separable toy data set: real libraries, no network, no weights."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from ticket_priority.ml.types import LabelledText

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CUES = (
    ("typo", "font", "colour", "wish", "newsletter"),
    ("slow", "delayed", "invoice", "refund", "login"),
    ("outage", "breach", "fire", "down", "lost"),
)
FILLERS = ("please", "the", "system", "is", "since", "monday", "team", "hello", "thanks", "again")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random two-layer BERT and its WordPiece tokenizer."""
    return write_tiny_encoder(tmp_path_factory.mktemp("tiny-encoder"))


def write_tiny_encoder(folder: Path) -> Path:
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=64,
                num_labels=3,
                initializer_range=0.1,
                hidden_dropout_prob=0.0,
            )
        )
    model.save_pretrained(folder)
    return folder


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer that knows the toy words and single letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*SPECIAL_TOKENS, *FILLERS, *(cue for cues in CUES for cue in cues), *letters]
    words += [f"##{letter}" for letter in letters]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def toy_rows(count: int, seed: int, classes: tuple[int, ...] = (0, 1, 2)) -> list[LabelledText]:
    """Return rows whose class is told by their cue words; classes take turns."""
    draw = random.Random(seed)  # noqa: S311
    rows = []
    for index in range(count):
        label = classes[index % len(classes)]
        words = draw.choices(FILLERS, k=draw.randint(2, 12)) + draw.choices(CUES[label], k=3)
        draw.shuffle(words)
        rows.append(LabelledText(text=" ".join(words), label=label, pk=str(index)))
    return rows
