"""How far the way a ticket is written moves its priority, where what it says stays the same.

Knows no Django. Needs numpy.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticket_priority.interfaces import Classifier, LabelledText
from ticket_priority.policy import Costs
from ticket_priority.scoring import Scored, score
from ticket_priority.text import normalise

MOST_TICKETS: Final = 200
"""So many are rewritten at most: each costs as many answers as there are rewritings."""

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
"""By language; a ticket of another one, or of none that is known, gets the English phrases."""


def _with_typos(text: str) -> str:
    """Swap two letters within every fourth long word."""
    seen = 0

    def mistyped(match: re.Match[str]) -> str:
        nonlocal seen
        seen += 1
        word = match[0]
        middle = len(word) // 2
        swapped = word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
        return swapped if seen % _EVERY == 1 else word

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
    classifier: Classifier, rows: Sequence[LabelledText], costs: Costs | None = None
) -> dict[str, Any]:
    """Compare the answers to tickets, 200 at most, with those to the same tickets rewritten.

    Ready for JSON: the number of tickets `n`, the `seconds` it took, the figures of each of
    `PERTURBATIONS` under `by_perturbation`, and of all together under `overall`. `kept` is the
    share of tickets whose chosen class stays, `raised` of those that get a graver one, `shift` how
    far the expected class id (0 to 2) moves on average, either way. Raises ValueError without a
    single row.
    """
    if not len(rows):
        raise ValueError("invariance needs at least one row")
    started = time.perf_counter()
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_TICKETS)).astype(int))
    chosen = [rows[place] for place in places.tolist()]
    as_written = score(classifier, chosen, costs)
    moves: dict[str, _Moves] = {}
    for name in PERTURBATIONS:
        rewritten = [replace(row, text=perturbed(row, name)) for row in chosen]
        moves[name] = _Moves.between(as_written, score(classifier, rewritten, costs))
    return {
        "n": len(chosen),
        "seconds": round(time.perf_counter() - started, 2),
        "overall": _Moves.all_of(list(moves.values())).as_dict(),
        "by_perturbation": {name: each.as_dict() for name, each in moves.items()},
    }


@dataclass(frozen=True, slots=True)
class _Moves:
    """How far answers moved: in classes [n], and in expected class ids [n]."""

    steps: npt.NDArray[np.int64]
    shifts: npt.NDArray[np.float64]

    @classmethod
    def between(cls, before: Scored, after: Scored) -> _Moves:
        shifts = np.abs(_expected(after) - _expected(before))
        return cls(after.chosen - before.chosen, shifts)

    @classmethod
    def all_of(cls, moves: Sequence[_Moves]) -> _Moves:
        return cls(
            np.concatenate([each.steps for each in moves]),
            np.concatenate([each.shifts for each in moves]),
        )

    def as_dict(self) -> dict[str, float]:
        return {
            "kept": float((self.steps == 0).mean()),
            "raised": float((self.steps > 0).mean()),
            "shift": round(float(self.shifts.mean()), 12),
        }


def _expected(scored: Scored) -> npt.NDArray[np.float64]:
    ids = np.arange(scored.probabilities.shape[1])
    return np.asarray(scored.probabilities.astype(np.float64) @ ids, dtype=np.float64)
