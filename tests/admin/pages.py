"""Read the forms of a page, and what a browser would send with each."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class Form:
    """A form of a page. `values` is what it sends unchanged."""

    action: str
    id: str
    depth: int
    values: dict[str, Any] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.open: list[Form] = []
        self.select = ""
        self.textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            form = Form(given.get("action") or "", given.get("id") or "", len(self.open))
            self.forms.append(form)
            self.open.append(form)
        if not self.open:
            return
        values, name = self.open[-1].values, given.get("name") or ""
        if tag == "input" and name:
            kind = given.get("type")
            if kind not in ("submit", "checkbox") or (kind == "checkbox" and "checked" in given):
                values[name] = given.get("value") or ""
        elif tag == "select":
            self.select = name
            values[name] = ""
        elif tag == "option" and self.select and "selected" in given:
            values[self.select] = given.get("value") or ""
        elif tag == "textarea":
            self.textarea = name
            values[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self.open:
            self.open.pop()
        elif tag == "select":
            self.select = ""
        elif tag == "textarea":
            self.textarea = ""

    def handle_data(self, data: str) -> None:
        if self.textarea and self.open:
            self.open[-1].values[self.textarea] += data.removeprefix("\n").removeprefix("\r\n")


def forms_of(response: Any) -> list[Form]:
    reader = _Reader()
    reader.feed(response.content.decode())
    return reader.forms


def form_of(response: Any, name: str) -> Form:
    """Return the form whose id or action holds `name`."""
    (found,) = [form for form in forms_of(response) if name in form.id or name in form.action]
    return found


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]
