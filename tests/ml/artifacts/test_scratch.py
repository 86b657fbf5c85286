"""What a killed process leaves in folders that it was filling, and who takes it away."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.kills import finished, kill_me
from ticket_priority.ml.artifacts import scratch
from ticket_priority.ml.data.jsonl import Spool
from ticket_priority.ml.trainers.runs.folders import all_or_nothing, new_run
from ticket_priority.ml.types import LabelledText
from ticket_priority.starter import install as starter

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def killed(work: Callable[[], None]) -> None:
    assert finished(work) == signal.SIGKILL


def test_only_what_a_dead_process_filled_is_left_behind(tmp_path: Path) -> None:
    dead, alive, done = (tmp_path / f"{name}{scratch.MARK}" for name in ("a", "b", "c"))
    with scratch.in_use(done):
        pass

    def fill() -> None:
        with scratch.in_use(dead):
            kill_me()

    killed(fill)
    with scratch.in_use(alive):
        assert sorted(tmp_path.iterdir()) == [dead, alive]
        assert list(scratch.stale([dead, alive])) == [dead]
        assert list(scratch.stale([dead, alive])) == []
        assert list(tmp_path.iterdir()) == [alive]


def test_the_next_run_takes_away_what_a_killed_one_was_writing(tmp_path: Path) -> None:
    def train() -> None:
        with new_run(tmp_path) as run_dir:
            (run_dir / "checkpoints").mkdir()
            (run_dir / ".members" / "transformer").mkdir(parents=True)
            with all_or_nothing(run_dir / "artifact") as partial:
                (partial / "model.onnx").write_bytes(b"half")
                kill_me()

    killed(train)
    (dead,) = tmp_path.glob("*/[!.]*")
    with new_run(tmp_path) as first:
        (first / ".members").mkdir()
        # A checkpoint may still be resumed.
        assert [path.name for path in dead.iterdir()] == ["checkpoints"]
        with new_run(tmp_path) as second:
            assert (first / ".members").is_dir()
    assert not list(tmp_path.glob("*/.*"))
    assert [path.name for path in first.iterdir()] == [".members"]
    assert not list(second.iterdir())


def test_the_next_reader_takes_away_the_texts_of_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def read() -> None:
        spool = Spool()
        spool.append(LabelledText("My card number is 4111", 1))
        spool.finish()
        kill_me()

    killed(read)
    (left,) = tmp_path.glob("*/rows.jsonl")
    assert b"4111" in left.read_bytes()
    living = Spool()
    assert not left.exists()
    another = Spool()
    assert len(list(tmp_path.iterdir())) == 2
    for spool in (living, another):
        spool.finish()


def test_the_next_starter_takes_away_what_a_killed_one_was_made_of(artifact_root: Path) -> None:
    def make() -> None:
        with starter._staging() as staged:
            (staged / "model.onnx").write_bytes(b"half")
            kill_me()

    killed(make)
    output = artifact_root.parent / "outputs"
    assert len(list(output.iterdir())) == 1
    with starter._staging() as staged:
        assert [path.name for path in output.iterdir()] == [staged.parent.name]
    assert not list(output.iterdir())
