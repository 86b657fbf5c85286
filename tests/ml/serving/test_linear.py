from __future__ import annotations

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
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tests.ml.conftest import CUES, toy_rows
from tests.ml.serving.test_onnx import edit_config, exec_module, overwrite
from ticket_priority.exceptions import ArtifactError
from ticket_priority.ml.artifacts.linear import LETTER_NGRAMS, MOST_LETTERS
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.types import ARTIFACT_FORMAT, LabelledText

# Words of one letter, scripts without blanks or case, letters beyond 16 bits, signs inside a word.
ODD_ROWS = [
    LabelledText("Die Straßenbahn-Störung: ÜBERALL Ausfall, d. h. alles steht!", 2),
    LabelledText("Die Überweisung ist ärgerlich, d. h. zu spät", 1),
    LabelledText("サーバーが 停止しました。至急 対応 してください 🔥🔥🔥", 2),
    LabelledText("サーバーの 色を 変えて ください 🔥", 0),
    LabelledText("İstanbul'da fatura_no 12345 eksik, fatura_no 99", 1),
    LabelledText("e\u0301te\u0301 a b c d e I.B.M. a/b a b", 0),
]
ROWS = [*toy_rows(90, seed=1), *ODD_ROWS, *ODD_ROWS]


@pytest.fixture(scope="session")
def model() -> linear.LinearModel:
    return linear.train(ROWS)


@pytest.fixture(scope="session")
def written(model: linear.LinearModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of `model`, for tests that only read."""
    folder = tmp_path_factory.mktemp("linear")
    model.write(folder)
    return folder


@pytest.fixture(scope="session")
def classifier(written: Path) -> LinearClassifier:
    return LinearClassifier(written)


@pytest.fixture
def artifact(model: linear.LinearModel, tmp_path: Path) -> Path:
    """The artifact of `model`, for a test to spoil."""
    model.write(tmp_path)
    return tmp_path


def by_scikit_learn(model: linear.LinearModel, texts: list[str]) -> npt.NDArray[np.float64]:
    answers: npt.NDArray[np.float64] = model.regression.predict_proba(
        model.features.transform(texts)
    )
    return answers


def assert_same_answers(
    classifier: LinearClassifier, model: linear.LinearModel, texts: list[str]
) -> None:
    ours = [answer.probabilities for answer in classifier.classify(texts)]
    assert np.array(ours) == pytest.approx(by_scikit_learn(model, texts), abs=2e-6)


known_words = st.sampled_from(sorted({word for row in ROWS for word in row.text.split()}))
blanks = st.sampled_from([" ", "  ", "\n", "\t \n", "\u2003", "\xa0", "\x85", "\x1c", ", ", "-"])


@st.composite
def familiar_texts(draw: st.DrawFn) -> str:
    """Texts of words that training saw, in any case, run together with odd blanks and others."""
    parts = draw(st.lists(st.tuples(known_words | st.text(max_size=6), blanks), max_size=40))
    text = "".join(word + blank for word, blank in parts)
    return text.upper() if draw(st.booleans()) else text


@given(texts=st.lists(familiar_texts() | st.text(max_size=200), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_it_answers_as_scikit_learn_does(
    classifier: LinearClassifier, model: linear.LinearModel, texts: list[str]
) -> None:
    assert_same_answers(classifier, model, texts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        "?!… ---",
        "a",
        "ab",
        "a b c d e",
        "outage",
        "OUTAGE Outage outage",
        "İİİ İstanbul ß ẞ ﬁ",
        "停止しました 至急",
        "🔥🔥🔥 🔥",
        "\U0010ffff\U0010fffe a\U0010ffff",
        "\x00\x1c\x1doutage\x1efire\x1f",
        "outage " * 1_400,
        "x" * 10_000,
        " ".join(chr(code) for code in range(33, 5_000)),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_odd_texts_too(classifier: LinearClassifier, model: linear.LinearModel, text: str) -> None:
    assert_same_answers(classifier, model, [text])


def test_a_lone_surrogate_is_a_letter_that_nobody_knows(classifier: LinearClassifier) -> None:
    (answer,) = classifier.classify(["outage \ud800 outage"])
    assert answer.label == "high"


def test_it_answers_in_the_order_of_the_texts(classifier: LinearClassifier) -> None:
    answers = classifier.classify([" ".join(words) for words in CUES] * 3)
    assert [answer.priority for answer in answers] == [0, 1, 2] * 3
    for answer in answers:
        assert math.fsum(answer.probabilities) == pytest.approx(1.0, abs=1e-12)


def test_no_texts_give_no_answers(classifier: LinearClassifier) -> None:
    assert classifier.classify([]) == []


def test_temperature_flattens(artifact: Path, model: linear.LinearModel) -> None:
    edit_config(temperature=3.0)(artifact)
    (warm,) = LinearClassifier(artifact).classify(["outage fire"])
    scores = model.scores(model.features.transform(["outage fire"]))[0] / 3.0
    expected = np.exp(scores) / np.exp(scores).sum()
    assert warm.probabilities == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("classes", [(0, 2), (1, 2)])
def test_a_class_that_training_lacked_has_probability_zero(
    tmp_path: Path, classes: tuple[int, int]
) -> None:
    model = linear.train(toy_rows(60, seed=1, classes=classes))
    model.write(tmp_path)
    texts = [row.text for row in toy_rows(12, seed=4)]
    answers = np.array([a.probabilities for a in LinearClassifier(tmp_path).classify(texts)])
    assert answers[:, list(classes)] == pytest.approx(by_scikit_learn(model, texts), abs=2e-6)
    (absent,) = {0, 1, 2} - set(classes)
    assert not answers[:, absent].any()


def test_a_model_of_words_alone_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_LARGE", 50)
    model = linear.train(ROWS)
    model.write(tmp_path)
    assert len(load_file(tmp_path / "model.safetensors")["letter_keys"]) == 0
    assert_same_answers(LinearClassifier(tmp_path), model, ["outage please", "サーバーが", ""])


def test_threads_share_one_classifier(classifier: LinearClassifier) -> None:
    texts = [row.text for row in toy_rows(50, seed=7)]
    alone = classifier.classify(texts)
    with ThreadPoolExecutor(8) as pool:
        assert all(answer == alone for answer in pool.map(classifier.classify, [texts] * 20))


def edit_tensors(**changes: Any) -> Callable[[Path], None]:
    """Replace tensors; None removes one, a function is given what is there."""

    def edit(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        for name, change in changes.items():
            old = tensors.pop(name, None)
            if change is not None:
                tensors[name] = change(old) if callable(change) else change
        save_file(tensors, directory / "model.safetensors")

    return edit


def not_finite(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    spoilt = tensor.copy()
    spoilt.flat[3] = np.nan
    return spoilt


def turned_over(keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """End in the greatest number and the one that an overflow makes of the next."""
    bounds = np.iinfo(keys.dtype)
    return np.append(keys[:-2], [bounds.max, bounds.min])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda directory: (directory / "config.json").unlink(), "config.json is missing"),
        (lambda directory: (directory / "model.safetensors").unlink(), "safetensors is missing"),
        (overwrite("config.json", b"{"), "config.json is not JSON"),
        (overwrite("config.json", b"[1]"), "no JSON object"),
        (overwrite("model.safetensors", b"not tensors"), "safetensors cannot be loaded"),
        (edit_config(format=ARTIFACT_FORMAT + 1), "Upgrade django-ticket-priority"),
        (edit_config(format="1"), "format is '1'"),
        (edit_config(kind="transformer"), "kind is 'transformer', not 'linear'"),
        (edit_config(classes=["low", "high"]), "Train a model with these three classes"),
        (edit_config(learned=[]), r"learned is \[\]"),
        (edit_config(learned="high"), "learned is 'high'"),
        (edit_config(learned=["high", "low"]), "in this order"),
        (edit_config(learned=["low", "urgent"]), "in this order"),
        (edit_config(learned=["low", "high"]), r"intercepts is \[3\], not \[2\]"),
        (edit_config(temperature=-1), "temperature is -1"),
        (edit_config(temperature="1"), "temperature is '1'"),
        (edit_config(word_ngrams=[1, 3]), r"word_ngrams is \[1, 3\]"),
        (edit_config(letter_ngrams=None), "letter_ngrams is None"),
        (edit_tensors(words=None), "it holds"),
        (edit_tensors(extra=np.zeros(1, np.float32)), "it holds"),
        (edit_tensors(words=np.array([0xFF], np.uint8)), "words cannot be read"),
        (edit_tensors(word_idf=lambda old: old.astype(np.float64)), "word_idf is float64"),
        (edit_tensors(word_idf=lambda old: old[1:]), "word_idf is"),
        (edit_tensors(word_keys=lambda old: old[::-1].copy()), "not in ascending order"),
        (edit_tensors(letter_keys=lambda old: old - old[0] - 1), "not in ascending order"),
        (edit_tensors(letter_keys=turned_over), "not in ascending order"),
        (edit_tensors(letter_coefficients=lambda old: old[:, :2].copy()), "letter_coefficients is"),
        (edit_tensors(letter_coefficients=not_finite), "not finite"),
        (edit_tensors(intercepts=np.full(3, np.inf, np.float32)), "not finite"),
        (edit_tensors(letters=lambda old: old + 0x10FFFF), "no ascending code points"),
        (edit_tensors(letters=lambda old: old - 200), "no ascending code points"),
        (edit_tensors(letters=np.arange(1, 7_000, dtype=np.int32)), "no ascending code points"),
    ],
)
def test_a_spoilt_artifact_says_what_to_do(
    artifact: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(artifact)
    with pytest.raises(ArtifactError, match=message) as caught:
        LinearClassifier(artifact)
    assert any(word in str(caught.value) for word in ("activate", "Train", "Upgrade"))


@pytest.mark.parametrize("temperature", [5e-324, 1e308])
def test_extreme_numbers_still_give_probabilities(artifact: Path, temperature: float) -> None:
    edit_config(temperature=temperature)(artifact)
    edit_tensors(word_coefficients=lambda old: np.sign(old) * np.finfo(np.float32).max)(artifact)
    for answer in LinearClassifier(artifact).classify(["outage", "please", ""]):
        assert math.fsum(answer.probabilities) == pytest.approx(1.0, abs=1e-12)
        assert min(answer.probabilities) >= 0


def test_the_longest_key_fits() -> None:
    """The greatest key of the most letters is below what marks the end of the keys."""
    base = MOST_LETTERS + 1
    assert base ** LETTER_NGRAMS[1] <= np.iinfo(np.int64).max


def test_a_process_that_classifies_imports_numpy_and_safetensors_alone(written: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "heavy = ['torch', 'sklearn', 'scipy', 'onnxruntime', 'tokenizers', 'transformers']\n"
        "sys.modules.update(dict.fromkeys([*heavy, 'django']))\n"
        "from ticket_priority.ml.serving.linear import LinearClassifier\n"
        "print(LinearClassifier(Path(sys.argv[1])).classify(['outage fire'])[0].label)\n"
    )
    command = [sys.executable, "-c", script, str(written)]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (output.stdout, output.stderr) == ("high\n", "")


@pytest.mark.parametrize("missing", ["numpy", "safetensors"])
def test_without_the_extra_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    serving = importlib.import_module("ticket_priority.ml.serving")

    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == missing else name
    )
    with pytest.raises(ImportError, match=rf"needs {missing}.*django-ticket-priority\[serving\]"):
        exec_module(serving)


def test_the_configuration_says_what_was_learned(written: Path) -> None:
    values = json.loads((written / "config.json").read_text())
    assert values["kind"] == "linear"
    assert values["learned"] == values["classes"] == ["low", "medium", "high"]
