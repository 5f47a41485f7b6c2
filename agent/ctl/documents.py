"""Answers for programs: JSON and YAML, in ASCII, which is harmless for a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["DOCUMENTS", "document_text", "stream_text"]

_UNBROKEN = 1 << 30
DOCUMENTS = ("json", "yaml")
"""Forms of an answer for programs."""


def document_text(document: Mapping[str, Any], form: str) -> str:
    """Return ``document`` in a form of DOCUMENTS."""
    text = json.dumps(document, indent=2, ensure_ascii=True)
    return _yaml(json.loads(text)) if form == "yaml" else text


def stream_text(document: Mapping[str, Any], form: str) -> str:
    """Return one of several documents: a line of JSON, or a document of a YAML stream."""
    text = json.dumps(document, ensure_ascii=True)
    return f"---\n{_yaml(json.loads(text))}" if form == "yaml" else text


def _yaml(document: object) -> str:
    """Return YAML. Text that a reader of YAML 1.1 or 1.2 could take for a number is quoted."""
    import yaml  # noqa: PLC0415 - 20 ms, and few ask for it

    # The compiled one is ten times as fast, where PyYAML has it.
    base: type[yaml.SafeDumper] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[valid-type,misc] # chosen where it runs
        def represent_str(self, data: str) -> yaml.Node:
            # Half a surrogate pair, which JSON allows, is no character for the compiled one.
            data = data.encode("utf-8", "backslashreplace").decode()
            plain = re.fullmatch(r"[A-Za-z_/][\w ./@-]*", data, re.ASCII)
            style = None if plain else '"'
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)  # type: ignore[no-any-return] # base's

    Dumper.add_representer(str, Dumper.represent_str)
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, width=_UNBROKEN)
    return text.rstrip("\n")
