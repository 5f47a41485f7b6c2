"""daemon.json: what is refused, and with which message."""

import pytest

from agent.docker.daemonjson.document import parse, parse_bytes, same_json
from agent.errors import DockerConfigError

pytestmark = pytest.mark.unit

NAME = "property name enclosed in double quotes"
REFUSED = {
    "line comment": ('{\n  // mirrors\n  "debug": true\n}', "2:3", NAME),
    "block comment": ('{"debug": true /* why */}', "1:16", "',' delimiter"),
    "hash comment": ('# managed by hand\n{"debug": true}', "1:1", "value"),
    "trailing comma in an array": ('{"dns": ["8.8.8.8",\n]}', "", ""),
    "trailing comma in an object": ('{\n  "debug": true,\n}\n', "", ""),
    "missing comma": ('{\n  "a": 1\n  "b": 2\n}', "3:3", "',' delimiter"),
    "cut off": ('{\n  "debug": tr', "2:12", "value"),
    "cut off in a string": ('{\n  "debug": "tr', "2:12", "Unterminated string"),
    "cut off after a value": ('{"debug": true', "1:15", "',' delimiter"),
    "single quotes": ("{'debug': true}", "1:2", NAME),
    "no quotes": ("{debug: true}", "1:2", NAME),
    "python's spelling": ('{"debug": True}', "1:11", "value"),
    "two documents": ('{"a": 1}\n{"b": 2}', "2:1", "end of the file"),
    "an array": ("[1]", "1:1", "an object"),
    "null": ("null", "1:1", "an object"),
    "leading zero": ('{"mtu": 01450}', "1:10", "',' delimiter"),
    "infinity": ('{"mtu": Infinity}', "", "Infinity is not JSON"),
    "raw newline in a string": ('{"a": "x\ny"}', "1:9", "Invalid control character"),
    "bad escape": ('{"a": "\\x41"}', "1:8", "escape"),
    "the same key twice": ('{\n  "bip": "a",\n  "bip": "b"\n}', "", "'bip' is given twice"),
    "the same key twice, escaped": ('{"bip": 1, "\\u0062ip": 2}', "", "'bip' is given twice"),
    "the same key twice, nested": ('{"o": {"x": 1, "x": 2}}', "", "'x' is given twice"),
    "nested too deep": ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "", "too deep"),
    "a form feed": ('{\f"a": 1}', "1:2", NAME),
}
"""Text, line and column (the versions of Python differ where there is none), and the error."""


@pytest.mark.parametrize("name", REFUSED)
def test_damage_is_refused_with_its_place(name: str) -> None:
    text, place, message = REFUSED[name]
    with pytest.raises(DockerConfigError) as caught:
        parse(text, source="/etc/docker/daemon.json")
    where = f"/etc/docker/daemon.json:{place}: " if place else "/etc/docker/daemon.json:"
    assert caught.value.message.startswith(where)
    assert message in caught.value.message
    assert ("comments" in caught.value.hint) == name.endswith("comment")


def test_bytes_that_are_not_utf8_are_refused_with_line_and_column() -> None:
    with pytest.raises(DockerConfigError, match=r"d\.json:2:4: byte 0xe4 is not UTF-8"):
        parse_bytes(b'{\n  "\xe4": 1}', source="d.json")


def test_utf16_is_refused() -> None:
    with pytest.raises(DockerConfigError):
        parse_bytes('{"debug": true}'.encode("utf-16"), source="d.json")


def test_a_huge_file_is_refused_without_parsing_it() -> None:
    with pytest.raises(DockerConfigError, match="too long"):
        parse_bytes(b" " * (1024 * 1024 + 1), source="d.json")


def test_a_string_that_never_ends_is_refused_quickly() -> None:
    with pytest.raises(DockerConfigError, match="Unterminated string"):
        parse('{"a": "' + "x\\\\" * 200_000)


def test_a_nested_key_below_something_else_than_an_object_is_refused() -> None:
    document = parse('{\n  "default-network-opts": 7\n}', source="d.json")
    with pytest.raises(DockerConfigError, match=r"d\.json:2:27: 'default-network-opts'"):
        document.with_values({("default-network-opts", "bridge", "x"): "1"})


def test_a_previous_value_comes_back_byte_for_byte() -> None:
    before = '{"pools": [ {"size":24.0 ,"b":"\\u0031"} ],"a":1}'
    raw = parse(before).raw(("pools",))
    assert raw is not None
    changed = parse(before).with_values({("pools",): [1, 2]})
    assert changed.text == '{"pools": [1,2],"a":1}'
    assert changed.with_text(("pools",), raw).text == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"x": 1}', "{}"),
        ('{ "x": 1 }', "{ }"),
        ('{\n  "x": 1\n}\n', "{\n}\n"),
        ('{"x": 1, "y": 2}', '{"y": 2}'),
        ('{\n  "x": 1,\n  "y": 2\n}\n', '{\n  "y": 2\n}\n'),
        ('{"y": 2, "x": 1}', '{"y": 2}'),
        ('{"a": 1, "x": 1, "y": 2}', '{"a": 1, "y": 2}'),
        ('{"a": 1\n , "x": 1\n , "y": 2}', '{"a": 1\n , "y": 2}'),
        ('{"y": 2}', '{"y": 2}'),
    ],
)
def test_removing_takes_one_comma_with_it(before: str, after: str) -> None:
    assert parse(before).with_text(("x",), None).text == after


def test_numbers_of_any_length_pass() -> None:
    text = '{"n": ' + "9" * 5000 + "}"
    assert parse(text).value(("n",)) == "9" * 5000
    assert parse(text).with_values({("m",): 1}).text == text[:-1] + ', "m": 1}'


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [(1, 1, True), (1, 1.0, False), (1, True, False), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True)],
)
def test_same_json_is_stricter_than_equality(left: object, right: object, same: bool) -> None:
    assert same_json(left, right) is same  # type: ignore[arg-type]
