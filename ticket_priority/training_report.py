"""The figures of a training run as lines to print. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ticket_priority.interfaces import CLASS_NAMES

_RUNGS: Final = {"model": "this model", "tfidf_logreg": "TF-IDF + LR", "majority": "majority"}
_WAYS: Final = {"time": "by time", "random": "at random", "file": "as the file says"}


def lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the model beside the baselines, from `TrainingResult.metrics`.

    What lacks figures is left out; of an artefact from elsewhere that may be all.
    """
    rungs = {name: metrics[name] for name in _RUNGS if _has_figures(metrics.get(name))}
    if not rungs:
        return
    yield ""
    yield _row("test split", *(_RUNGS[name] for name in rungs))
    for figure, title in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
        yield _row(title, *(f"{rung[figure]:.3f}" for rung in rungs.values()))
    for name in CLASS_NAMES:
        yield _row(
            f"{name}: precision / recall", *(_precision_recall(r, name) for r in rungs.values())
        )
    yield ""
    model, linear = rungs.get("model"), rungs.get("tfidf_logreg")
    if model and linear and model["macro_f1"] < linear["macro_f1"]:
        yield "Note: TF-IDF + logistic regression does better than this model on this test split."


def data_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is learnt from, how it was split, and what the splits have in common."""
    rows = figures["rows"]
    line = (
        f"{sum(rows.values())} labelled tickets: {rows['train']} to train, "
        f"{rows['validation']} to validate, {rows['test']} to test"
    )
    dropped = ", ".join(
        f"{count} {reason}" for reason, count in figures.get("dropped", {}).items() if count
    )
    yield f"{line} (left out: {dropped})" if dropped else line
    labels = ", ".join(f"{count} {name}" for name, count in figures["provenance"].items())
    yield f"Labels by provenance: {labels or 'none'}"
    edited = figures.get("edited")
    if edited and edited["known"]:
        yield (
            f"Texts: {edited['since']} of {edited['known']} tickets whose first text is known "
            f"were edited since; {edited['restored']} of them are learnt from as they were created"
        )
    way, copies = figures["split"], figures.get("near_copies")
    reason = f" ({way['reason']})" if way["reason"] else ""
    yield f"Split {_WAYS[way['by']]}{reason}"
    if copies and copies["rows_in_groups"]:
        yield (
            f"{copies['rows_in_groups']} tickets have near-copies; the largest group has "
            f"{copies['largest'][0]}; no group is in two splits"
        )
    leakage = figures["leakage"]
    yield (
        f"Leakage: of {leakage['test_rows']} test tickets, {leakage['near_copies']} have a "
        f"near-copy and {leakage['similar']} a similar text among those to train"
    )


def _row(title: str, *cells: str) -> str:
    return f"{title:<28}" + "".join(f"{cell:>16}" for cell in cells)


def _has_figures(rung: Any) -> bool:
    return isinstance(rung, Mapping) and _are_numbers(rung, "accuracy", "macro_f1")


def _precision_recall(rung: Mapping[str, Any], name: str) -> str:
    classes = rung.get("per_class")
    figures = classes.get(name) if isinstance(classes, Mapping) else None
    if not isinstance(figures, Mapping) or not _are_numbers(figures, "precision", "recall"):
        return "-"
    return f"{figures['precision']:.2f} / {figures['recall']:.2f}"


def _are_numbers(figures: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(figures.get(name), int | float) for name in names)
