"""Robustness: how far rewriting a ticket, content unchanged, moves its priority. Needs numpy."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.evaluation.scoring import score
from ticket_priority.ml.policy.rule import Costs
from ticket_priority.ml.text.normalisation import normalise
from ticket_priority.ml.types import Classifier, LabelledText

MOST_TICKETS: Final = 200
MOST_SECONDS: Final = 60.0
"""A large model answers fewer tickets in this time, as each costs an answer for each rewriting."""

_AT_ONCE: Final = 10
_SEED: Final = 20

_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_LONG_WORD = re.compile(r"\b[^\W\d_]{6,}\b")
_EVERY: Final = 4


@dataclass(frozen=True, slots=True)
class Phrases:
    """What requesters of one language add to a ticket."""

    urgent: str
    hurry: str
    keywords: str
    plea: str
    greeting: str
    farewell: str


PHRASES: Final[Mapping[str, Phrases]] = {
    "en": Phrases(
        urgent="URGENT!!!",
        hurry="ASAP, very urgent!!!",
        keywords="outage, all down, data loss, security breach, all users affected, critical",
        plea="Please treat this as top priority, my boss is watching.",
        greeting="Dear support team,",
        farewell="Thank you and best regards\nAlex Morgan\nAccounts, ext. 204",
    ),
    "de": Phrases(
        urgent="DRINGEND!!!",
        hurry="Sofort, sehr eilig!!!",
        keywords="Ausfall, alles steht, Datenverlust, Sicherheitsvorfall, alle betroffen, kritisch",
        plea="Bitte mit höchster Priorität behandeln, mein Chef schaut zu.",
        greeting="Liebes Support-Team,",
        farewell="Vielen Dank und freundliche Grüße\nAlex Morgan\nBuchhaltung, App. 204",
    ),
    "es": Phrases(
        urgent="¡¡¡URGENTE!!!",
        hurry="Cuanto antes, ¡muy urgente!",
        keywords="caída, todo parado, pérdida de datos, brecha de seguridad, todos sin acceso",
        plea="Por favor, tratadlo con máxima prioridad, mi jefe está mirando.",
        greeting="Estimado equipo de soporte:",
        farewell="Muchas gracias y un saludo\nAlex Morgan\nContabilidad, ext. 204",
    ),
    "fr": Phrases(
        urgent="URGENT !!!",
        hurry="Au plus vite, très urgent !!!",
        keywords="panne, tout est bloqué, perte de données, faille de sécurité, critique",
        plea="Merci de traiter ceci en priorité absolue, mon chef regarde.",
        greeting="Bonjour à toute l'équipe,",
        farewell="Merci d'avance et bien cordialement\nAlex Morgan\nComptabilité, poste 204",
    ),
    "pt": Phrases(
        urgent="URGENTE!!!",
        hurry="O mais rápido possível, muito urgente!!!",
        keywords="queda, tudo parado, perda de dados, falha de segurança, todos afetados, crítico",
        plea="Por favor, tratem isto com prioridade máxima, o meu chefe está a ver.",
        greeting="Cara equipa de suporte,",
        farewell="Obrigado e melhores cumprimentos\nAlex Morgan\nContabilidade, ext. 204",
    ),
}
"""By language; a ticket of any other language, or of an unknown one, gets the English phrases."""


def _with_typos(text: str) -> str:
    """Swap two letters within every fourth long word."""
    numbers = count()

    def mistyped(match: re.Match[str]) -> str:
        word, middle = match[0], len(match[0]) // 2
        swapped = word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
        return word if next(numbers) % _EVERY else swapped

    return _LONG_WORD.sub(mistyped, text)


def _as_html(text: str) -> str:
    lines = "".join(f"<p style='margin:0'>{html.escape(line)}</p>" for line in text.splitlines())
    return f"<html><head><style>p {{color: red}}</style></head><body>{lines}</body></html>"


PERTURBATIONS: Final[Mapping[str, Callable[[str, Phrases], str]]] = {
    "shouting": lambda text, phrases: text.upper(),
    "exclamation_marks": lambda text, phrases: _SENTENCE_END.sub("!!!", text) + "!!!",
    "urgent_first": lambda text, phrases: f"{phrases.urgent} {text}",
    "urgent_last": lambda text, phrases: f"{text}\n{phrases.hurry}",
    "keywords": lambda text, phrases: f"{text}\n{phrases.keywords}",
    "plea": lambda text, phrases: f"{text}\n{phrases.plea}",
    "greeting": lambda text, phrases: f"{phrases.greeting}\n{text}\n{phrases.farewell}",
    "whitespace": lambda text, phrases: text.replace(" ", " \t ").replace("\n", "\r\n\r\n"),
    "html": lambda text, phrases: _as_html(text),
    "typos": lambda text, phrases: _with_typos(text),
}
"""The rewritings, by name: a normalised text and its language's phrases give a raw text."""


def perturbed(row: LabelledText, name: str) -> str:
    """Return the row's text, rewritten and normalised as a ticket's would be."""
    phrases = PHRASES.get(row.language.lower()[:2], PHRASES["en"])
    return normalise(PERTURBATIONS[name](row.text, phrases))


def measure(
    classifier: Classifier,
    rows: Sequence[LabelledText],
    costs: Costs | None = None,
    *,
    most_seconds: float = MOST_SECONDS,
) -> dict[str, Any]:
    """Compare the answers to some tickets with those to the same tickets rewritten.

    At most 200 tickets are drawn, with a fixed seed, and classified ten at a time until
    `most_seconds` have passed. Ready for JSON: the number of tickets `n`, the `seconds` it took,
    the figures of each of `PERTURBATIONS` under `by_perturbation`, and of all together under
    `overall`. `kept` is the share of tickets whose chosen class stays, `raised` the share that gets
    a higher priority, `shift` how far the expected class id (0 to 2) moves on average, either way.
    Raises ValueError without a single row.
    """
    if not len(rows):
        raise ValueError("robustness needs at least one row")
    started = time.perf_counter()
    drawn = np.random.default_rng(_SEED).permutation(len(rows))[:MOST_TICKETS].tolist()
    found: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(drawn), _AT_ONCE):
        if found and time.perf_counter() - started > most_seconds:
            break
        chosen = [rows[place] for place in sorted(drawn[start : start + _AT_ONCE])]
        found.append(_moves(classifier, chosen, costs))
    moves = np.concatenate(found, axis=1)
    return {
        "n": moves.shape[1],
        "seconds": round(time.perf_counter() - started, 2),
        "overall": _figures(moves),
        "by_perturbation": dict(zip(PERTURBATIONS, map(_figures, moves), strict=True)),
    }


def _moves(
    classifier: Classifier, rows: Sequence[LabelledText], costs: Costs | None
) -> npt.NDArray[np.float64]:
    """Return how far answers moved [perturbations, n, 2]: chosen and expected class ids."""
    rewritten = [[perturbed(row, name) for row in rows] for name in PERTURBATIONS]
    as_written = [row.text for row in rows]
    # A rewriting that normalisation undoes gives the same text, which is classified once.
    texts = list(dict.fromkeys(chain(as_written, *rewritten)))
    scored = score(classifier, [LabelledText(text, 0) for text in texts], costs)
    expected = scored.probabilities.astype(np.float64) @ np.arange(scored.probabilities.shape[1])
    place_of = {text: place for place, text in enumerate(texts)}
    before = [place_of[text] for text in as_written]
    after = [[place_of[text] for text in line] for line in rewritten]
    class_ids = np.stack((scored.chosen.astype(float), expected), axis=1)
    return np.asarray(class_ids[after] - class_ids[before])


def _figures(moves: npt.NDArray[np.float64]) -> dict[str, float]:
    steps, shifts = moves[..., 0], moves[..., 1]
    return {
        "kept": float((steps == 0).mean()),
        "raised": float((steps > 0).mean()),
        "shift": round(float(np.abs(shifts).mean()), 12),
    }
