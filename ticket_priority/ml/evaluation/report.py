"""The figures of a training run as lines to print. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

from ticket_priority.ml.types import CLASS_NAMES

_RIVALS: Final = {
    "transformer": "transformer",
    "tfidf_logreg": "TF-IDF + LR",
    "majority": "majority",
}
_FIGURES: Final = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_kappa": "weighted kappa",
    "calibration_error": "calibration error",
}
_MOVES: Final = {"kept": "same answer", "raised": "higher", "shift": "moved by"}
_LANGUAGE_FIGURES: Final = ("accuracy", "macro_f1", "calibration_error")
_WAYS: Final = {"time": "by time", "random": "at random", "file": "as the file says"}


def lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield tables of the model beside the baselines, with 95% intervals, and of its languages.

    A last one says how far its answers move where tickets are only written in another manner.

    `metrics` is `TrainingResult.metrics` or `ModelVersion.metrics`. Where the model was scored as
    it is served, that is what is shown: in a table of its own where the test was another one, as
    after an import. What lacks figures is left out; of an artifact from elsewhere that may be all.
    """
    yield from _quality(metrics)
    yield from _robustness(_mapping(metrics.get("robustness")))


def _quality(metrics: Mapping[str, Any]) -> Iterator[str]:
    served, trained = metrics.get("served"), metrics.get("model")
    rivals = {title: metrics.get(name) for name, title in _RIVALS.items()}
    if _has_figures(served) and _has_figures(trained) and not is_same_test(served, trained):
        yield from _table("the labelled tickets here", _beside_majority(served))
        yield from _table("its own test split", {"as trained": trained, **rivals})
        return
    if not _has_figures(served):
        yield from _table("test split", {"this model": trained, **rivals})
        return
    if not _has_figures(trained):
        yield from _table("test split", _beside_majority(served))
        return
    yield from _table("test split", {"this model": served, **rivals})
    if any(f"{served[name]:.3f}" != f"{trained[name]:.3f}" for name in ("accuracy", "macro_f1")):
        yield (
            f"Before it was exported: accuracy {trained['accuracy']:.3f}, macro F1 "
            f"{trained['macro_f1']:.3f}"
        )


def is_same_test(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether two reports are of one test, going by the tickets of each class."""
    supports = [
        [_mapping(_mapping(each.get("per_class")).get(name)).get("support") for name in CLASS_NAMES]
        for each in (one, other)
    ]
    return supports[0] == supports[1]


def row(title: str, *cells: str) -> str:
    """Return a line of a table."""
    return f"{title:<28}" + "".join(f"{cell:>24}" for cell in cells)


def with_interval(figures: Mapping[str, Any], name: str) -> str:
    """Return a figure with its interval, where that is known; "-" where the figure is not."""
    found = _mapping(figures.get("intervals")).get(name)
    match found:
        case [int() | float() as low, int() | float() as high]:
            return f"{_number(figures, name)} [{low:.3f}, {high:.3f}]"
    return _number(figures, name)


def precision_recall(figures: Mapping[str, Any], name: str) -> str:
    """Return both figures of a class; "-" where they are not known."""
    found = _mapping(_mapping(figures.get("per_class")).get(name))
    if not _are_numbers(found, "precision", "recall"):
        return "-"
    return f"{found['precision']:.2f} / {found['recall']:.2f}"


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


def _beside_majority(served: Mapping[str, Any]) -> dict[str, Any]:
    return {"this model": served, "majority": served.get("majority")}


def _table(title: str, columns: Mapping[str, Any]) -> Iterator[str]:
    """Yield the columns that have figures, and the languages of the first of all."""
    shown = {name: figures for name, figures in columns.items() if _has_figures(figures)}
    if not shown:
        return
    yield ""
    yield row(title, *shown)
    for name, label in _FIGURES.items():
        if any(_are_numbers(figures, name) for figures in shown.values()):
            yield row(label, *(with_interval(figures, name) for figures in shown.values()))
    for name in CLASS_NAMES:
        yield row(
            f"{name}: precision / recall",
            *(precision_recall(figures, name) for figures in shown.values()),
        )
    yield from _languages(_mapping(next(iter(columns.values()))))
    yield ""
    model, linear = next(iter(columns.values())), shown.get(_RIVALS["tfidf_logreg"])
    if _has_figures(model) and linear and model["macro_f1"] < linear["macro_f1"]:
        yield "Note: TF-IDF + logistic regression does better than this model on this test split."


def _languages(model: Mapping[str, Any]) -> Iterator[str]:
    languages = {
        name: figures
        for name, figures in _mapping(model.get("by_language")).items()
        if _has_figures(figures) and _are_numbers(figures, "n")
    }
    if not languages:
        return
    yield ""
    yield f"{'language':<16}" + "".join(
        f"{title:>19}" for title in ("tickets", *map(_FIGURES.get, _LANGUAGE_FIGURES))
    )
    for name, figures in languages.items():
        cells = (_number(figures, figure) for figure in _LANGUAGE_FIGURES)
        yield f"{name or 'unknown':<16.16}" + "".join(
            f"{cell:>19}" for cell in (str(figures["n"]), *cells)
        )


def _robustness(figures: Mapping[str, Any]) -> Iterator[str]:
    moves = {
        name.replace("_", " "): _mapping(found)
        for name, found in _mapping(figures.get("by_perturbation")).items()
    }
    moves["all together"] = _mapping(figures.get("overall"))
    shown = {name: found for name, found in moves.items() if _are_numbers(found, *_MOVES)}
    if not shown or not _are_numbers(figures, "n"):
        return
    yield f"{'rewritten':<20}" + "".join(f"{title:>15}" for title in _MOVES.values())
    for name, found in shown.items():
        shares = "".join(f"{found[key]:>15.1%}" for key in ("kept", "raised"))
        yield f"{name:<20.20}{shares}{found['shift']:>15.3f}"
    yield f'({figures["n"]} test tickets, each rewritten; "moved by" is in classes, 0 to 2)'
    yield ""


def _has_figures(figures: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(figures, Mapping) and _are_numbers(figures, "accuracy", "macro_f1")


def _number(figures: Mapping[str, Any], name: str) -> str:
    return f"{figures[name]:.3f}" if _are_numbers(figures, name) else "-"


def _are_numbers(figures: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(figures.get(name), int | float) for name in names)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
