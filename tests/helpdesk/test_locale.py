from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.test import Client

import helpdesk

CATALOGUES = Path(helpdesk.__file__).parent / "locale"
TRANSLATIONS = ("de", "fr", "es", "pt")


def messages(language: str) -> dict[str, str]:
    text = (CATALOGUES / language / "LC_MESSAGES" / "django.po").read_text()
    return dict(re.findall(r'^msgid "(.+)"\nmsgstr "(.*)"$', text, re.MULTILINE))


@pytest.mark.parametrize(
    ("language", "heading"),
    [
        ("en", "Open a ticket"),
        ("de", "Ticket eröffnen"),
        ("fr", "Ouvrir un ticket"),
        ("es", "Abrir un ticket"),
        ("pt", "Abrir um ticket"),
    ],
)
def test_a_requester_reads_the_form_in_their_language(
    client: Client, db: None, language: str, heading: str
) -> None:
    page = client.get("/", HTTP_ACCEPT_LANGUAGE=language).content.decode()
    assert f'<html lang="{language}"' in page
    assert f"<h1>{heading}</h1>" in page


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_message_is_translated_with_its_placeholders(language: str) -> None:
    translated = messages(language)
    assert translated.keys() == messages("de").keys()
    for message, translation in translated.items():
        assert translation, message
        placeholders = r"%\(\w+\)s|</?\w+>"
        assert sorted(re.findall(placeholders, message)) == sorted(
            re.findall(placeholders, translation)
        ), message
