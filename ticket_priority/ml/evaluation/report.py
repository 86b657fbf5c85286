"""The figures of a training run as lines to print. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ticket_priority.ml.evaluation.figures import FIGURES, Metrics, Report
from ticket_priority.ml.types import CLASS_NAMES

_TITLES: Final = dict(
    zip(FIGURES, ("accuracy", "macro F1", "weighted kappa", "calibration error"), strict=True)
)
_LINEAR: Final = "TF-IDF + LR"
_LANGUAGE_FIGURES: Final = ("accuracy", "macro_f1", "calibration_error")
_WAYS: Final = {"time": "by time", "random": "at random", "file": "as the file says"}


def lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield tables of the model and the baselines, of languages, and of robustness.

    `metrics` is `TrainingResult.metrics` or `ModelVersion.metrics`. Where the model was scored as
    it is served, those figures are shown, in a table of their own where the test was another one,
    as after an import. What lacks figures is left out.
    """
    found = Metrics.read(metrics)
    yield from _quality(found)
    yield from _robustness(found)


def _quality(found: Metrics) -> Iterator[str]:
    served, trained = found.served, found.model
    baselines = {
        "transformer": found.transformer,
        _LINEAR: found.tfidf_logreg,
        "majority": found.majority,
    }
    beside_served = {"this model": served, "majority": found.served_majority}
    if not served.is_complete:
        yield from _table("test split", {"this model": trained, **baselines})
    elif not trained.is_complete:
        yield from _table("test split", beside_served)
    elif not served.is_same_test(trained):
        yield from _table("the labelled tickets here", beside_served)
        yield from _table("its own test split", {"as trained": trained, **baselines})
    else:
        yield from _table("test split", {"this model": served, **baselines})
        before, after = (
            f"accuracy {_number(one.figure('accuracy'))}, macro F1 "
            f"{_number(one.figure('macro_f1'))}"
            for one in (trained, served)
        )
        if before != after:
            yield f"Before it was exported: {before}"


def row(title: str, *cells: str) -> str:
    """Return a line of a table."""
    return f"{title:<28}" + "".join(f"{cell:>24}" for cell in cells)


def with_interval(report: Report, name: str) -> str:
    """Return a figure with its interval, where that is known; "-" where the figure is not."""
    found = report.estimate(name)
    if found.low is None:
        return _number(found.value)
    return f"{_number(found.value)} [{_number(found.low)}, {_number(found.high)}]"


def precision_recall(report: Report, name: str) -> str:
    """Return both figures of a class; "-" where they are not known."""
    found = report.classes.get(name)
    if found is None or found.precision.value is None or found.recall.value is None:
        return "-"
    return f"{found.precision.value:.2f} / {found.recall.value:.2f}"


def data_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the data holds, how it was split, and what the splits have in common."""
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


def _table(title: str, columns: Mapping[str, Report]) -> Iterator[str]:
    """Yield the columns that have figures, and the languages of the first column."""
    shown = {name: report for name, report in columns.items() if report.is_complete}
    if not shown:
        return
    model, linear = next(iter(columns.values())), shown.get(_LINEAR)
    yield ""
    yield row(title, *shown)
    for name, label in _TITLES.items():
        if any(report.figure(name) is not None for report in shown.values()):
            yield row(label, *(with_interval(report, name) for report in shown.values()))
    for name in CLASS_NAMES:
        yield row(
            f"{name}: precision / recall",
            *(precision_recall(report, name) for report in shown.values()),
        )
    yield from _languages(model)
    yield ""
    own, best = (one.figure("macro_f1") if one else None for one in (model, linear))
    if model.is_complete and own is not None and best is not None and own < best:
        yield "Note: TF-IDF + logistic regression does better than this model on this test split."


def _languages(model: Report) -> Iterator[str]:
    shown = [one for one in model.languages if None not in (one.rows, one.accuracy, one.macro_f1)]
    if not shown:
        return
    titles = ("tickets", *(_TITLES[name] for name in _LANGUAGE_FIGURES))
    yield ""
    yield f"{'language':<16}" + "".join(f"{title:>19}" for title in titles)
    for one in shown:
        cells = (str(one.rows), *(_number(getattr(one, name)) for name in _LANGUAGE_FIGURES))
        yield f"{one.language or 'unknown':<16.16}" + "".join(f"{cell:>19}" for cell in cells)


def _robustness(found: Metrics) -> Iterator[str]:
    moves = {name.replace("_", " "): one for name, one in found.moves.items()}
    if found.overall_moves is not None:
        moves["all together"] = found.overall_moves
    printed = [
        f"{name:<20.20}{one.kept:>15.1%}{one.raised:>15.1%}{one.shift:>15.3f}"
        for name, one in moves.items()
        if None not in (one.kept, one.raised, one.shift)
    ]
    if not printed or found.rewritten_rows is None:
        return
    titles = ("same answer", "higher", "moved by")
    yield f"{'rewritten':<20}" + "".join(f"{title:>15}" for title in titles)
    yield from printed
    yield f'({found.rewritten_rows} test tickets, each rewritten; "moved by" is in classes, 0 to 2)'
    yield ""


def _number(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
