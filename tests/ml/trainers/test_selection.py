from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.artifacts import transformer as transformer_config
from ticket_priority.ml.artifacts.ensemble import EnsembleConfig
from ticket_priority.ml.artifacts.linear import LinearConfig
from ticket_priority.ml.artifacts.transformer import TransformerConfig
from ticket_priority.ml.trainers.selection import LINEAR_SHARES, Fitted, ModelSelection, best_of
from ticket_priority.ml.types import LabelledText

LABELS = [0, 0, 1, 1, 2, 2]
ROWS = [LabelledText(f"text {number}", label) for number, label in enumerate(LABELS)]


def _answers(*wrong: int, confidence: float = 0.8) -> np.ndarray:
    """Return probabilities for `ROWS` that miss the numbered rows by one class, less surely."""
    found = np.full((len(LABELS), 3), (1 - confidence) / 2)
    for place, label in enumerate(LABELS):
        if place in wrong:
            found[place] = 0.15
            found[place, label] = 0.4
            found[place, (label + 1) % 3] = 0.45
        else:
            found[place, label] = confidence
    return found


def _selection(
    folder: Path, linear: np.ndarray | None, *transformers: np.ndarray
) -> ModelSelection:
    selection = ModelSelection(folder, ROWS, ROWS)
    for number, answers in enumerate(transformers, start=1):
        name = f"transformer-{number}"
        (folder / name).mkdir()
        TransformerConfig(64, "", 0, "native", "tiny", {}).write(folder / name)
        serving = {"precision": "int8", "size_mb": 2.0}
        selection.add(name, Fitted(transformer_config.KIND, answers, answers, serving))
    if linear is not None:
        (folder / "linear").mkdir()
        LinearConfig((0, 1, 2), temperature=2.0).write(folder / "linear")
        serving = {"precision": "fp32", "size_mb": 1.0}
        selection.add("linear", Fitted(linear_config.KIND, linear, linear, serving))
    return selection


def test_models_that_err_on_different_rows_are_better_together(tmp_path: Path) -> None:
    selection = _selection(tmp_path, _answers(0, 2), _answers(1, 3))
    best = best_of(selection.candidates(), "val_accuracy")
    assert best.name == "ensemble"
    assert best.figures["val_accuracy"] == 1.0
    assert selection.report(best)["accuracy"] == 1.0
    assert selection.serving(best)["size_mb"] == 3.0
    assert selection.serving(best)["precision"] == "fp32, int8"
    selection.write(best, tmp_path / "artifact")
    config = EnsembleConfig.read(tmp_path / "artifact")
    assert {member.folder: member.weight for member in config.members} == pytest.approx(
        {"linear": 0.5, "transformer-1": 0.5}
    )
    for member in config.members:
        assert (tmp_path / "artifact" / member.folder / "config.json").is_file()


def test_on_a_tie_the_simplest_wins(tmp_path: Path) -> None:
    selection = _selection(tmp_path, _answers(), _answers())
    assert best_of(selection.candidates(), "val_accuracy").name == "tfidf_logreg"


def test_what_is_better_alone_is_published_alone(tmp_path: Path) -> None:
    selection = _selection(tmp_path, _answers(*range(6), confidence=0.99), _answers(confidence=0.5))
    best = best_of(selection.candidates(), "val_accuracy")
    assert best.name == "transformer"
    selection.write(best, tmp_path / "artifact")
    config = TransformerConfig.read(tmp_path / "artifact")
    assert config.temperature == pytest.approx(best.config.temperature)
    assert selection.serving(best) == {"precision": "int8", "size_mb": 2.0}


def test_a_linear_model_keeps_its_own_temperature_too(tmp_path: Path) -> None:
    selection = _selection(tmp_path, _answers(), _answers(0, 1, 2))
    best = best_of(selection.candidates(), "val_accuracy")
    selection.write(best, tmp_path / "artifact")
    config = LinearConfig.read(tmp_path / "artifact")
    assert config.temperature == pytest.approx(2.0 * best.config.temperature)


def test_seeds_share_the_transformers_part(tmp_path: Path) -> None:
    selection = _selection(tmp_path, _answers(0, 2), _answers(1), _answers(3))
    weights = {
        candidate.name: [member.weight for member in candidate.config.members]
        for candidate in selection.candidates()
    }
    assert weights["tfidf_logreg"] == [1.0]
    assert weights["transformer"] == [0.5, 0.5]
    linear, *seeds = weights["ensemble"]
    assert linear in LINEAR_SHARES
    assert seeds == [pytest.approx((1 - linear) / 2)] * 2


def test_a_poor_linear_model_weighs_little(tmp_path: Path) -> None:
    good, poor = _answers(0), _answers(*range(6), confidence=0.6)
    shares = []
    for number, linear in enumerate((good, poor)):
        folder = tmp_path / str(number)
        folder.mkdir()
        *_alone, together = _selection(folder, linear, _answers(1)).candidates()
        shares.append(together.config.members[0].weight)
    assert shares[0] > shares[1] == min(LINEAR_SHARES)


def test_the_loss_chooses_downwards(tmp_path: Path) -> None:
    selection = _selection(tmp_path, _answers(0), _answers(0, 1, 2))
    assert best_of(selection.candidates(), "val_loss").name == "tfidf_logreg"
