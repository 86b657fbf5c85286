from __future__ import annotations

import importlib
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.support import tampering
from ticket_priority.exceptions import ArtifactError
from ticket_priority.ml.artifacts.transformer import TransformerConfig
from ticket_priority.ml.serving.onnx import OnnxClassifier
from ticket_priority.ml.types import ARTIFACT_FORMAT

WORDS = ["[PAD]", "[UNK]", "[CLS]", "typo", "slow", "outage", "please", "query:"]
SCORES = np.array(
    [[9, 9, 9], [0, 0, 0], [0, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 3], [0.1, 0.1, 0], [0, 0, 5]],
    np.float32,
)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact whose logits are the sum of its words' scores; padding would score 9."""
    return write_artifact(tmp_path)


def write_artifact(directory: Path, scores: Any = SCORES, **settings: Any) -> Path:
    values: dict[str, Any] = {
        "max_length": 8,
        "prefix": "",
        "pad_token_id": 0,
        "pooling": "native",
        "base_model": "by hand",
        "encoder": {},
    }
    TransformerConfig(**(values | settings)).write(directory)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(directory / "tokenizer.json"))
    nodes = [
        helper.make_node("Gather", ["scores", "input_ids"], ["looked_up"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["looked_up", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["logits"], keepdims=0),
    ]
    shape = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, ["batch", np.asarray(scores).shape[1]]
    )
    constants = {"scores": np.asarray(scores, np.float32), "last": [2], "tokens": [1]}
    graph = helper.make_graph(
        nodes,
        "sum",
        inputs,
        [output],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, directory / "model.onnx")
    return directory


def expected(words: str, temperature: float = 1.0) -> np.ndarray:
    ids = [WORDS.index(word) if word in WORDS else 1 for word in words.split()]
    powers = np.exp(SCORES[ids].sum(axis=0, dtype=np.float64) / temperature)
    return powers / powers.sum()


def test_it_answers_in_the_order_of_the_texts(artifact: Path) -> None:
    texts = ["please please typo", "outage", "", "unheard slow words here", "slow"] * 3
    answers = OnnxClassifier(artifact).classify(texts)
    assert [answer.label for answer in answers[:5]] == ["low", "high", "high", "medium", "medium"]
    for text, answer in zip(texts, answers, strict=True):
        assert answer.probabilities == pytest.approx(expected(text), abs=1e-6)
        assert math.fsum(answer.probabilities) == pytest.approx(1.0, abs=1e-12)


def test_no_texts_give_no_answers(artifact: Path) -> None:
    assert OnnxClassifier(artifact).classify([]) == []


def test_temperature_flattens_and_prefix_is_read(tmp_path: Path) -> None:
    (warm := tmp_path / "warm").mkdir()
    (prefixed := tmp_path / "prefixed").mkdir()
    answer = OnnxClassifier(write_artifact(warm, temperature=4.0)).classify(["outage"])[0]
    assert answer.probabilities == pytest.approx(expected("outage", 4.0), abs=1e-6)
    answer = OnnxClassifier(write_artifact(prefixed, prefix="query: ")).classify(["typo"])[0]
    assert answer.probabilities == pytest.approx(expected("query: typo"), abs=1e-6)


def test_a_long_text_is_cut_at_max_length(artifact: Path) -> None:
    answers = OnnxClassifier(artifact).classify(["slow " * 7 + "outage " * 50, "slow " * 7])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("batch_tokens", [1, 6, 24, 10_000_000])
def test_batches_hold_no_more_than_the_capped_tokens(artifact: Path, batch_tokens: int) -> None:
    classifier = OnnxClassifier(artifact, batch_tokens=batch_tokens)
    session, shapes = classifier._session, []

    class Recorder:
        def run(self, outputs: Any, feed: dict[str, Any], options: Any) -> Any:
            assert feed["input_ids"].shape == feed["attention_mask"].shape
            shapes.append(feed["input_ids"].shape)
            return session.run(outputs, feed, options)

    texts = ["slow " * (index % 7) for index in range(400)]
    whole = classifier.classify(texts)
    classifier._session = Recorder()
    assert classifier.classify(texts) == whole
    assert sum(rows for rows, _ in shapes) == len(texts)
    assert all(rows == 1 or rows * longest <= min(batch_tokens, 1024) for rows, longest in shapes)
    padded = sum(rows * longest for rows, longest in shapes)
    assert padded < 400 * 7


def test_threads_share_one_classifier(artifact: Path) -> None:
    classifier = OnnxClassifier(artifact, threads=1)
    texts = [" ".join(WORDS[3 : 3 + index % 5]) for index in range(50)]
    alone = classifier.classify(texts)
    with ThreadPoolExecutor(8) as pool:
        assert all(answer == alone for answer in pool.map(classifier.classify, [texts] * 40))


def test_numbers_that_are_not_finite_are_no_answer(tmp_path: Path) -> None:
    classifier = OnnxClassifier(write_artifact(tmp_path, scores=SCORES * np.nan))
    with pytest.raises(ArtifactError, match="not finite"):
        classifier.classify(["outage"])


def edit_config(**values: Any) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes(content) and None


def two_classes(directory: Path) -> None:
    write_artifact(directory, scores=SCORES[:, :2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda directory: (directory / "config.json").unlink(), "config.json is missing"),
        (lambda directory: (directory / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (overwrite("config.json", b"{"), "config.json is not JSON"),
        (overwrite("config.json", b"[1]"), "no JSON object"),
        (overwrite("model.onnx", b"not a model"), "model.onnx cannot be loaded"),
        (overwrite("tokenizer.json", b"{}"), "tokenizer.json cannot be loaded"),
        (tampering.huge("tokenizer.json", 257 << 20), "tokenizer.json is larger than 256 MiB"),
        (tampering.nested("config.json"), "config.json is not JSON"),
        (edit_config(format=ARTIFACT_FORMAT + 1), "Upgrade django-ticket-priority"),
        (edit_config(format=None), "format is None"),
        (edit_config(kind="linear"), "kind is 'linear'"),
        (edit_config(classes=["low", "high"]), "Train a model with these three classes"),
        (edit_config(max_length=100_000), "max_length is 100000"),
        (edit_config(pad_token_id=-1), "pad_token_id is -1"),
        (edit_config(prefix=None), "prefix is not a text"),
        (edit_config(temperature=0), "temperature is 0"),
        (edit_config(encoder=[]), "must be objects"),
        (two_classes, "not one row of 3 scores"),
    ],
)
def test_a_spoilt_artifact_says_what_to_do(
    artifact: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(artifact)
    with pytest.raises(ArtifactError, match=message) as caught:
        OnnxClassifier(artifact)
    assert any(word in str(caught.value) for word in ("activate", "Train", "Upgrade"))


def test_a_process_that_classifies_never_imports_torch(artifact: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from ticket_priority.ml.serving.onnx import OnnxClassifier\n"
        "print(OnnxClassifier(Path(sys.argv[1])).classify(['outage'])[0].label)\n"
        "print([n for n in ('torch', 'transformers', 'lightning', 'django') if n in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(artifact)]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    assert output.stdout.split("\n")[:2] == ["high", "[]"], output.stderr
    assert output.stderr == ""


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    serving = importlib.import_module("ticket_priority.ml.serving")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "numpy" else name
    )
    with pytest.raises(ImportError, match=r"needs numpy.*django-ticket-priority\[serving\]"):
        exec_module(serving)


def exec_module(module: Any) -> None:
    source = Path(module.__file__).read_text()
    exec(compile(source, module.__file__, "exec"), {"__name__": module.__name__})  # noqa: S102
