"""The page's document: one file, a policy that allows only its own parts, no HTML from data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agent.daemon.ui import page
from agent.daemon.ui.page import load_page, snapshot_page

pytestmark = pytest.mark.unit

STATIC = Path(page.__file__).parent / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u2028"


class Elements(HTMLParser):
    """Every element's attributes, and the text of scripts and styles."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside in self.texts:
            self.texts[self._inside][-1] += data


def digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    found = load_page()
    elements = Elements(found.html)
    (script,), (style,) = elements.texts["script"], elements.texts["style"]
    assert dict(each.partition(" ")[::2] for each in found.policy.split("; ")) == {
        "default-src": "'none'",
        "script-src": digest(script),
        "style-src": digest(style),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
        "frame-ancestors": "'none'",
    }
    assert found.headers["Content-Security-Policy"] == found.policy


def test_the_page_loads_nothing_and_has_no_inline_handler_or_style() -> None:
    for tag, attributes in Elements(load_page().html).elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert "src" not in attributes
        href = attributes.get("href") or "#"
        assert href.startswith("data:" if tag == "link" else "#")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda each: each.name)
def test_promise_8_no_script_makes_html_or_code_of_text(path: Path) -> None:
    text = path.read_text()
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|srcdoc"
    assert not re.findall(sinks + r"|DOMParser|createContextualFragment|\.style\b|\.cssText", text)


def test_every_script_of_the_folder_is_in_the_page() -> None:
    html = load_page().html.decode()
    assert all(path.read_text() in html for path in SCRIPTS)


def test_promise_8_a_snapshot_holds_hostile_names_as_data_only() -> None:
    sections = {"at": 1.0, "sections": {"status": {"host": {"name": HOSTILE}}}}
    html = snapshot_page(sections)
    elements = Elements(html)
    data, script = elements.texts["script"]
    assert json.loads(data) == sections
    assert HOSTILE.encode() not in html
    assert not [tag for tag, _ in elements.elements if tag == "img"]
    (policy,) = (
        each["content"] or ""
        for tag, each in elements.elements
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert digest(script) in policy
    assert "connect-src 'none'" in policy
