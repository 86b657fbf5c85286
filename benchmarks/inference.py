"""Time one ticket and a batch of tickets with the shape of distilbert-base-multilingual-cased.

    python benchmarks/inference.py [--json FILE] [--rounds N] [--cache DIR]

The weights are random, which costs the same as trained ones. All candidates run in one process, in
turn in every round, so that a busy machine slows all of them alike; figures are medians. Memory is
measured in a process of its own, without torch. Exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ticket_priority.ml.serving.onnx import OnnxClassifier
from ticket_priority.ml.trainers.encoders.build import build_model_from_config
from ticket_priority.ml.trainers.encoders.resolve import Encoder
from ticket_priority.ml.trainers.export.comparison import ExportSource, HeldOutTexts
from ticket_priority.ml.trainers.export.onnx import Quantization, write_artifact
from ticket_priority.ml.types import ArtifactFile

THREADS = 2
TOKENS = 100
WARM_UP = 5
SHAPE: dict[str, Any] = {
    "model_type": "distilbert",
    "vocab_size": 119_547,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LEAST_SPEED_UP = 3.0
MOST_OVERHEAD = 1.3
MOST_MEGABYTES = 300.0

PROBE = """
import json, sys
from pathlib import Path
import resource
def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
from ticket_priority.ml.serving.onnx import OnnxClassifier
imported = megabytes()
classifier = OnnxClassifier(Path(sys.argv[1]), threads=2)
loaded = megabytes()
texts = json.loads(sys.stdin.read())
for _ in range(3):
    classifier.classify(texts[:1])
one = megabytes()
classifier.classify(texts)
assert "torch" not in sys.modules and "transformers" not in sys.modules
status = Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
print(json.dumps({"imported": imported, "loaded": loaded, "one_ticket": one,
                  "after_batch": megabytes(), "peak": peak}))
"""


def synthetic_tokenizer() -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer with as many entries as the real one."""
    words = [*SPECIAL, *(f"w{index}" for index in range(SHAPE["vocab_size"] - len(SPECIAL)))]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    fast: Any = PreTrainedTokenizerFast
    built: PreTrainedTokenizerFast = fast(
        tokenizer_object=tokenizer, **dict(zip(roles, SPECIAL, strict=True))
    )
    return built


def text_of(tokens: int, draw: random.Random) -> str:
    """Return a text of so many tokens, the two special ones included."""
    return " ".join(f"w{draw.randrange(100_000)}" for _ in range(tokens - 2))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each candidate, all of them timed in every round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(WARM_UP + rounds):
        for name, call in candidates.items():
            started = time.perf_counter()
            call()
            if round_number >= WARM_UP:
                times[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def feed(rows: list[list[int]]) -> dict[str, Any]:
    """Pad token ids to the longest row: input_ids and attention_mask, [rows, longest]."""
    longest = max(map(len, rows))
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def resident_memory(directory: Path, texts: list[str]) -> dict[str, float]:
    """Return the resident megabytes of a process that only serves."""
    root = str(Path(__file__).resolve().parent.parent)
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, str(directory)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def build_artifact(directory: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Write an int8 artifact of DistilBERT's shape; return model, tokenizer and its figures."""
    torch.manual_seed(0)
    draw = random.Random(0)  # noqa: S311
    tokenizer = synthetic_tokenizer()
    model = build_model_from_config(SHAPE, "native", 3)
    encoder = Encoder("random", "native", "")
    texts = [text_of(draw.randint(10, 120), draw) for _ in range(12)]
    figures = write_artifact(
        ExportSource(model, tokenizer, encoder, 512, "DistilBERT-multilingual, random weights"),
        directory,
        HeldOutTexts(texts, [index % 3 for index in range(12)]),
        Quantization.ALWAYS,
        progress=say,
    )
    return model, tokenizer, figures


def run(directory: Path, rounds: int) -> dict[str, Any]:
    """Build the artifact, time and weigh it, and return every figure with its verdict."""
    torch.set_num_threads(THREADS)
    draw = random.Random(0)  # noqa: S311
    model, tokenizer, figures = build_artifact(directory)
    texts = [text_of(int(min(400, draw.lognormvariate(4.2, 0.7))) + 8, draw) for _ in range(64)]
    say("Weighing a process that only serves")
    resident = resident_memory(directory, texts)

    # Imported here: the plugin must import it first, so that it sends no telemetry.
    import onnxruntime

    classifier = OnnxClassifier(directory, threads=THREADS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # As in the classifier: spinning threads would be slower on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        directory / ArtifactFile.ONNX, options, providers=["CPUExecutionProvider"]
    )
    ticket = text_of(TOKENS, draw)
    ready = feed([tokenizer(ticket)["input_ids"]])
    assert ready["input_ids"].shape == (1, TOKENS)
    tensors = {name: torch.from_numpy(value) for name, value in ready.items()}
    rows = tokenizer(texts)["input_ids"]

    def torch_fp32() -> None:
        with torch.inference_mode():
            model(**tensors)

    def unsorted_batches() -> None:
        for start in range(0, len(rows), 32):
            session.run(None, feed(rows[start : start + 32]))

    say(f"Timing one ticket of {TOKENS} tokens, {rounds} rounds")
    ticket_ms = measure(
        {
            "torch_fp32": torch_fp32,
            "onnx_int8_bare": lambda: session.run(None, ready),
            "onnx_classifier": lambda: classifier.classify([ticket]),
        },
        rounds,
    )
    say("Timing 64 tickets of mixed length")
    batch_ms = measure(
        {
            "unsorted_by_32": unsorted_batches,
            "sorted_and_capped": lambda: classifier.classify(texts),
        },
        max(3, rounds // 6),
    )
    speed_up = ticket_ms["torch_fp32"] / ticket_ms["onnx_classifier"]
    overhead = ticket_ms["onnx_classifier"] / ticket_ms["onnx_int8_bare"]
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": THREADS,
            "load": os.getloadavg()[0],
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "rounds": rounds,
        "artifact": figures,
        "ticket_ms": ticket_ms,
        "batch_ms": batch_ms,
        "tickets_per_second": {name: 64_000 / value for name, value in batch_ms.items()},
        "resident_mb": resident,
        "targets": {
            "speed_up_over_torch": _target(speed_up, LEAST_SPEED_UP, speed_up >= LEAST_SPEED_UP),
            "overhead_over_bare_onnx": _target(overhead, MOST_OVERHEAD, overhead <= MOST_OVERHEAD),
            "serving_process_mb": _target(
                resident["one_ticket"], MOST_MEGABYTES, resident["one_ticket"] <= MOST_MEGABYTES
            ),
        },
    }


def _target(value: float, limit: float, passed: bool) -> dict[str, Any]:
    return {"value": round(value, 3), "limit": limit, "passed": passed}


def table(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    torch_ms = figures["ticket_ms"]["torch_fp32"]
    lines = [
        f"{TOKENS}-token ticket, {THREADS} threads, median of {figures['rounds']}",
        *(
            f"  {name:<24}{value:9.1f} ms {torch_ms / value:9.2f} x torch"
            for name, value in figures["ticket_ms"].items()
        ),
        "64 tickets of mixed length",
        *(
            f"  {name:<24}{value:9.0f} ms {64_000 / value:9.1f} tickets/s"
            for name, value in figures["batch_ms"].items()
        ),
        f"Resident memory, model.onnx of {figures['artifact']['size_mb']} MB, no torch",
        *(f"  {name:<24}{value:9.0f} MB" for name, value in figures["resident_mb"].items()),
        "Targets",
        *(
            f"  {name:<24}{value['value']:9.2f}    limit {value['limit']:>6}"
            f"   {'PASS' if value['passed'] else 'FAIL'}"
            for name, value in figures["targets"].items()
        ),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=30, help="timed rounds (default 30)")
    parser.add_argument("--cache", type=Path, help="keep the artifact in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = run(arguments.cache or Path(scratch), arguments.rounds)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(target["passed"] for target in figures["targets"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
