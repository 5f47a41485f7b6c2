"""Any file gives Settings or one SettingsError that names places, never a traceback."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SettingsError
from agent.settings import KEYS, Settings, load_settings
from agent.settings.lines import find_lines
from agent.settings.text import printable

pytestmark = pytest.mark.property

_PAIRS = [(section, key) for section, keys in KEYS.items() for key in keys]
_VALUES = st.one_of(
    st.text(max_size=40),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.lists(st.text(max_size=10), max_size=3),
    st.sampled_from(["10.64.0.0/10", "http://h:1", "/x", "eth0", "10.0.0.1", "auto", "host-gw"]),
)
_FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["[", "]", "{", "}", "=", ",", "\n", '"', "'", '"""', "'''", "#", ".", "\\"]
        ),
        st.sampled_from([*KEYS, *(key for _section, key in _PAIRS)]),
        st.sampled_from(["1", "true", "nan", "1979-05-27", "0x1f"]),
        st.text(max_size=5),
    ),
    max_size=40,
).map("".join)


def outcome(data: bytes, environ: dict[str, str] | None = None) -> Settings | SettingsError:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.toml"
        path.write_bytes(data)
        try:
            return load_settings(path, environ or {})
        except SettingsError as error:
            found = error
        assert found.problems
        for problem in found.problems:
            assert problem.startswith((str(path), "environment ")), problem
            assert printable(problem) == problem, "a problem never carries control characters"
        return found


@given(st.binary(max_size=200))
def test_any_bytes_give_settings_or_their_error(data: bytes) -> None:
    outcome(data)


@given(_FRAGMENTS)
@settings(max_examples=300)
def test_any_pieces_of_toml_give_settings_or_their_error(text: str) -> None:
    outcome(text.encode("utf-8", "surrogatepass"))


@given(st.dictionaries(st.sampled_from(_PAIRS), _VALUES, max_size=6))
@settings(max_examples=200)
def test_any_values_of_known_keys_are_taken_or_named_with_their_line(
    values: dict[tuple[str, str], object],
) -> None:
    lines: list[str] = []
    places: dict[str, int] = {}
    for section in KEYS:
        keys = {key: value for (of, key), value in values.items() if of == section}
        if keys:
            lines.append(f"[{section}]")
            places[section] = len(lines)
        for key, value in keys.items():
            lines.append(
                f"{key} = {json.dumps(value).replace('NaN', 'nan').replace('Infinity', 'inf')}"
            )
            places[f"{section}.{key}"] = len(lines)
    text = "\n".join(lines).replace("\x7f", "")
    found = outcome(text.encode("utf-8", "replace"))
    if isinstance(found, Settings):
        return
    for problem in found.problems:
        place, name = problem.partition("agent.toml:")[2].split(": ")[:2]
        if place.isdigit() and "." in name:
            section = name.partition(".")[0]
            assert int(place) == places.get(name, places.get(section)), problem


@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from([f"HOSTMESH_{section}_{key}".upper() for section, key in _PAIRS]),
            st.text(max_size=10).map(lambda text: f"HOSTMESH_{text}"),
        ),
        st.text(max_size=30),
        max_size=5,
    )
)
def test_any_environment_gives_settings_or_their_error(environ: dict[str, str]) -> None:
    outcome(b"", environ)


@given(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=8, unique=True))
def test_a_scan_finds_every_key_where_it_was_written(names: list[str]) -> None:
    text = "".join(f"# {name} = [\n{name} = {{ {name} = ['\\n', \"]\"] }}\n" for name in names)
    lines = find_lines(text)
    for index, name in enumerate(names):
        assert lines[name,] == lines[name, name] == 2 * index + 2
