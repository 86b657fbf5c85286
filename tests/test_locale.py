from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from gettext import GNUTranslations
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import translation
from django.utils.translation.template import templatize

import ticket_priority
from helpdesk.models import Ticket
from ticket_priority.badges import priority_badge
from ticket_priority.models import Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions.overrides import override
from ticket_priority.priorities import Priority

PLUGIN = Path(ticket_priority.__file__).parent
TRANSLATIONS = ("de", "fr", "es", "pt")
LABELS = {
    "de": ["Niedrig", "Mittel", "Hoch"],
    "fr": ["Basse", "Moyenne", "Haute"],
    "es": ["Baja", "Media", "Alta"],
    "pt": ["Baixa", "Média", "Alta"],
}
MARKED = {"_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy"}


def entries(language: str) -> dict[str, list[str]]:
    """Return each message of a catalogue with its translations: one, or one per plural form."""
    text = (PLUGIN / "locale" / language / "LC_MESSAGES" / "django.po").read_text()
    found = {}
    for block in text.split("\n\n")[1:]:
        message = re.search(r'^msgid "(.+)"$', block, re.MULTILINE)
        assert message, block
        found[message[1]] = re.findall(r'^msgstr(?:\[\d\])? "(.*)"$', block, re.MULTILINE)
    return found


def marked_in_code() -> Iterator[str]:
    for path in PLUGIN.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                message = node.args[0] if node.args else None
                if node.func.id in MARKED and isinstance(message, ast.Constant):
                    yield message.value


def marked_in_templates() -> Iterator[str]:
    for path in PLUGIN.rglob("*.html"):
        for literal in re.findall(
            r"""gettext\(\s*u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", templatize(path.read_text())
        ):
            yield ast.literal_eval(literal)


@pytest.mark.parametrize("language", TRANSLATIONS)
class TestCatalogues:
    def test_every_marked_string_is_translated(self, language: str) -> None:
        marked = {*marked_in_code(), *marked_in_templates()}
        translated = entries(language)
        assert len(marked) > 150
        assert marked - translated.keys() == set()
        assert [message for message, given in translated.items() if not all(given)] == []

    def test_placeholders_are_kept(self, language: str) -> None:
        for message, given in entries(language).items():
            known = set(re.findall(r"%\(\w+\)\w", message)) | {"%(number)d"}
            for text in given:
                used = set(re.findall(r"%\(\w+\)\w", text))
                assert used <= known, message
            assert known - {"%(number)d"} <= used, message

    def test_the_compiled_catalogue_is_up_to_date(self, language: str) -> None:
        path = PLUGIN / "locale" / language / "LC_MESSAGES" / "django.mo"
        with path.open("rb") as file:
            compiled = GNUTranslations(file)
        for message, given in entries(language).items():
            if len(given) == 1:
                assert compiled.gettext(message) == given[0]


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_priorities_are_translated_and_their_classes_are_not(language: str) -> None:
    with translation.override(language):
        assert [str(priority.label) for priority in Priority] == LABELS[language]
        badge = priority_badge(Priority.HIGH)
        assert badge == f'<span class="tp-badge tp-badge--high">{LABELS[language][2]}</span>'
        assert [priority.slug for priority in Priority] == ["low", "medium", "high"]


@pytest.mark.parametrize("page", ["/tickets/", "/admin/helpdesk/ticket/"])
def test_a_german_list_shows_german_priorities(admin_client: Client, page: str) -> None:
    with ticket_priority.muted():
        Ticket.objects.create(subject="Drucker", priority=Priority.HIGH)
    shown = admin_client.get(page, HTTP_ACCEPT_LANGUAGE="de").content.decode()
    assert '<span class="tp-badge tp-badge--high">Hoch</span>' in shown
    assert ">High<" not in shown


def test_the_panel_of_a_german_ticket_is_german(admin_client: Client) -> None:
    with ticket_priority.muted():
        ticket = Ticket.objects.create(subject="Drucker", priority=Priority.HIGH)
    page = f"/admin/helpdesk/ticket/{ticket.pk}/change/"
    shown = admin_client.get(page, HTTP_ACCEPT_LANGUAGE="de").content.decode()
    for words in ("von einem Menschen gesetzt", "Das Modell wurde nicht gefragt.", "Einstufen"):
        assert words in shown


def test_the_api_speaks_the_same_words_in_every_language(admin_client: Client) -> None:
    with ticket_priority.muted():
        ticket = Ticket.objects.create(subject="Drucker", priority=Priority.LOW)
    Prediction.objects.create(
        content_type=content_type_of(Ticket),
        object_id=str(ticket.pk),
        mode="sync",
        state=Prediction.State.APPLIED,
        reason=Prediction.Reason.OK,
        priority=Priority.LOW,
    )
    override(ticket, Priority.HIGH)

    def first(path: str) -> dict[str, Any]:
        (row,) = admin_client.get(path, HTTP_ACCEPT_LANGUAGE="de").json()["results"]
        return dict(row)

    said = first("/api/predictions/")
    assert (said["priority"], said["state"], said["reason"]) == ("low", "applied", "ok")
    decided = first("/api/overrides/")
    assert (decided["from_priority"], decided["to_priority"]) == ("low", "high")
