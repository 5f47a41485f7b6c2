"""The page as one HTML document, under a Content-Security-Policy that names its parts by hash.

Its parts are files of this package, so that nothing has to be built. No part of the document comes
from the mesh: the page's script fills in data as text. The policy forbids every other script, style
and connection, and in browsers with Trusted Types every conversion of text to HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["HEADERS", "Page", "load_page", "snapshot_page"]

_SCRIPTS = ("dom", "model", "map", "views", "latency", "detail", "main")
_FOLDER = Path(__file__).parent / "static"
_META = '<meta http-equiv="Content-Security-Policy" content="{}">'
_DATA = '<script type="application/json" id="snapshot">{}</script>'

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of the page and of its stream, beside the page's policy."""


@dataclass(frozen=True, slots=True)
class Page:
    """The document.

    Attributes:
        html: The page.
        policy: Its Content-Security-Policy.
    """

    html: bytes
    policy: str

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers with which it is served."""
        return {**HEADERS, "Content-Security-Policy": self.policy, "X-Frame-Options": "DENY"}


@cache
def load_page() -> Page:
    """Return the live page. Read once, on the first request."""
    parts = _Parts.read()
    policy = "; ".join((*parts.policy("'self'"), "frame-ancestors 'none'"))
    return Page(parts.document(), policy)


def snapshot_page(sections: Mapping[str, Any]) -> bytes:
    """Return the page as a file that shows ``sections`` and connects to nothing."""
    parts = _Parts.read()
    # JSON has "<" only within texts. There it is escaped, because it could end the element.
    data = json.dumps(sections, separators=(",", ":")).replace("<", "\\u003c")
    return parts.document(_META.format("; ".join(parts.policy("'none'"))), _DATA.format(data))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of the document."""

    html: str
    style: str
    script: str

    @classmethod
    def read(cls) -> _Parts:
        script = "".join(_text_of(f"{name}.js") for name in _SCRIPTS)
        return cls(_text_of("page.html"), _text_of("page.css"), script)

    def document(self, head: str = "", data: str = "") -> bytes:
        """Put the parts together; the template has a comment in the place of each."""
        html = self.html
        for place, text in (
            ("<!-- head -->", head),
            ("<!-- style -->", f"<style>{self.style}</style>"),
            ("<!-- data -->", data),
            ("<!-- script -->", f"<script>{self.script}</script>"),
        ):
            html = html.replace(place, text, 1)
        return html.encode()

    def policy(self, connect: str) -> tuple[str, ...]:
        return (
            "default-src 'none'",
            f"script-src '{_hash(self.script)}'",
            f"style-src '{_hash(self.style)}'",
            "img-src data:",
            f"connect-src {connect}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )


def _text_of(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
