"""docs/settings.md and docs/exit-status.md against the code, so that they cannot rot."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from agent import errors
from agent.errors import HostmeshError
from agent.settings import KEYS, SECTIONS, load_settings

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[3] / "docs"


def toml_of(value: object) -> str:
    """A default as it would stand in agent.toml; empty for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return json.dumps([each if isinstance(each, str) else str(each) for each in value])
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(str(value))


def documented() -> dict[str, list[tuple[str, str, str]]]:
    """Section to (key, accepted, default) as docs/settings.md has them."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    section = ""
    for line in (DOCS / "settings.md").read_text().splitlines():
        if heading := re.match(r"## \[(\w+)\]", line):
            section = heading[1]
            found[section] = []
        elif row := re.match(r"\| `(\w+)` \| (.*?) \| (?:`(.*?)`|required)? ?\| .+ \|$", line):
            found[section].append((row[1], row[2], row[3] or ""))
    return found


def test_every_setting_is_documented_with_what_it_accepts_and_its_default() -> None:
    expected = {
        section: [
            (
                field.name,
                KEYS[section][field.name].accepts,
                "" if field.default is dataclasses.MISSING else toml_of(field.default),
            )
            for field in dataclasses.fields(cls)
        ]
        for section, cls in SECTIONS.items()
    }
    assert documented() == expected


def test_the_example_in_the_docs_is_valid(tmp_path: Path) -> None:
    text = (DOCS / "settings.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / "agent.toml"
        path.write_text(example)
        load_settings(path)


def test_every_error_has_a_status_and_a_code_of_its_own_and_both_are_documented() -> None:
    text = (DOCS / "exit-status.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| `([^|]*)` \|", text, re.MULTILINE)
    found = {name: (int(status), code) for status, name, code in rows}
    classes: list[type[HostmeshError]] = [getattr(errors, name) for name in errors.__all__]
    assert found == {each.__name__: (each.exit_code, each.code) for each in classes}
    assert len({each.exit_code for each in classes}) == len(classes)
    assert len({each.code for each in classes}) == len(classes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", each.code) for each in classes)
