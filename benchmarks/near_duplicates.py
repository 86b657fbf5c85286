"""Time the grouping of near-copies for several numbers of tickets, and count what it finds.

Run: .venv/bin/python benchmarks/near_duplicates.py [--rows 3000 10000 30000] [--json]

Synthetic tickets of 8 to 90 words; every fifth is a copy of another with one word changed. Each
size runs in a process of its own. `training_data.py` shows the memory.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[3_000, 10_000, 30_000])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(arguments.measure)))
        return 0
    figures = [
        json.loads(subprocess.check_output([sys.executable, __file__, f"--measure={rows}"]))
        for rows in arguments.rows
    ]
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return 0
    print(f"{'tickets':>9}{'seconds':>9}{'us each':>9}{'copies found':>16}{'false':>7}")
    for row in figures:
        print(
            f"{row['rows']:>9}{row['seconds']:>9.1f}{1e6 * row['seconds'] / row['rows']:>9.0f}"
            f"{row['found']:>9}/{row['planted']:<6}{row['false']:>7}"
        )
    return 0


def _measure(rows: int) -> dict[str, float]:
    from ticket_priority.ml.data.near_duplicates import TextSimilarity

    texts, originals = _tickets(rows)
    started = time.perf_counter()
    groups = TextSimilarity(texts).groups().tolist()
    seconds = time.perf_counter() - started
    copies = range(rows - len(originals), rows)
    return {
        "rows": rows,
        "seconds": seconds,
        "planted": len(originals),
        "found": sum(
            groups[copy] == groups[of] for copy, of in zip(copies, originals, strict=True)
        ),
        "false": sum(groups[row] != row for row in range(copies.start)),
    }


def _tickets(rows: int) -> tuple[list[str], list[int]]:
    """Return texts, the copies last, and the number of the text that each copy is of."""
    draw = random.Random(1)  # noqa: S311
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(20_000)]
    # As in a language, a few words make up most of a text.
    weights = [1 / (rank + 5) for rank in range(len(words))]
    kept = [draw.choices(words, weights, k=draw.randint(8, 90)) for _ in range(rows * 4 // 5)]
    long_enough = [number for number, text in enumerate(kept) if len(text) >= 20]
    originals = draw.choices(long_enough, k=rows - len(kept))
    copies = []
    for number in originals:
        copy = list(kept[number])
        copy[draw.randrange(len(copy))] = draw.choice(words)
        copies.append(copy)
    return [" ".join(text) for text in (*kept, *copies)], originals


if __name__ == "__main__":
    sys.exit(main())
