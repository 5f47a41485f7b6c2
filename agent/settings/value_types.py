"""What a settings value may be: each kind converts one value and says what it accepts.

A :class:`Kind` takes the value as TOML gave it. From the environment and from flags a
value comes as text; ``from_text`` makes of it what TOML would have given. ``convert``
raises :class:`ValueError` with what is wrong, without the key: the loader adds it.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from agent.model import forbidden_range
from agent.model.family import Address, Network, family_of, read_address, read_network
from agent.settings.text import shown, whole_number

__all__ = [
    "Kind",
    "absolute_path",
    "address",
    "boolean",
    "choice",
    "endpoints",
    "integer",
    "listen_address",
    "mesh_cidr",
    "optional_address",
    "optional_file",
    "pattern",
    "ranges",
    "seconds",
    "setting",
    "texts",
    "uplink",
]

T = TypeVar("T")
TextT = TypeVar("TextT", bound=str)

_MAX_TEXT_CHARS = 4096


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of value.

    Attributes:
        accepts: What it accepts, in the words of docs/settings.md.
        convert: The TOML value to ours; ValueError says what is wrong.
        from_text: The text of an environment variable or flag to the TOML value.
    """

    accepts: str
    convert: Callable[[object], T]
    from_text: Callable[[str], object] = str


def setting(kind: Kind[T], default: T) -> T:
    """Declare a dataclass field of ``kind``; typed as its value so that checkers see the type."""
    field: Any = dataclasses.field(default=default, metadata={"kind": kind})
    converted: T = field
    return converted


def _wrong_type(wanted: str, value: object) -> ValueError:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "a table"}
    got = names.get(type(value), f"a {type(value).__name__}")
    return ValueError(f"must be {wanted}, not {got} ({shown(value)})")


def _text_of(value: object, wanted: str = "text") -> str:
    if not isinstance(value, str):
        raise _wrong_type(wanted, value)
    if len(value) > _MAX_TEXT_CHARS:
        raise ValueError(f"is longer than {_MAX_TEXT_CHARS} characters")
    if not value.isprintable():
        raise ValueError(f"holds control characters ({shown(value)})")
    return value


def _number_from_text(text: str) -> object:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def integer(
    low: int, high: int, unit: str = "", *, refused: dict[int, str] | None = None
) -> Kind[int]:
    """Build the kind "whole number from ``low`` to ``high``"; ``refused`` maps numbers to why."""
    accepts = f"whole number, {low} to {high}" + (f" ({unit})" if unit else "")

    def convert(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(f"a whole number from {low} to {high}", value)
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}, not {shown(value)}")
        if refused and value in refused:
            raise ValueError(f"must not be {value}: {refused[value]}")
        return value

    return Kind(accepts, convert, _number_from_text)


def seconds(low: float, high: float) -> Kind[float]:
    """Build the kind "seconds from ``low`` to ``high``", fractions allowed."""
    accepts = f"seconds, {low:g} to {high:g}"

    def convert(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(f"a number of seconds from {low:g} to {high:g}", value)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds, not {shown(value)}")
        return float(value)

    return Kind(accepts, convert, _number_from_text)


def boolean() -> Kind[bool]:
    """Build the kind "true or false"."""
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}

    def convert(value: object) -> bool:
        if not isinstance(value, bool):
            raise _wrong_type("true or false", value)
        return value

    return Kind("true or false", convert, lambda text: words.get(text.lower(), text))


def choice(values: tuple[TextT, ...]) -> Kind[TextT]:
    """Build the kind "one of ``values``"."""
    accepts = "one of " + ", ".join(values)

    def convert(value: object) -> TextT:
        text = _text_of(value, accepts)
        for each in values:
            if text == each:
                return each
        raise ValueError(f"must be {accepts}, not {shown(text)}")

    return Kind(accepts, convert)


def pattern(accepts: str, regex: str) -> Kind[str]:
    """Build the kind "text that ``regex`` matches whole"."""
    compiled = re.compile(regex)

    def convert(value: object) -> str:
        text = _text_of(value, accepts)
        if compiled.fullmatch(text) is None:
            raise ValueError(f"must be {accepts}, not {shown(text)}")
        return text

    return Kind(accepts, convert)


def _list_from_text(text: str) -> object:
    if text.lstrip().startswith("["):
        try:
            return tomllib.loads(f"list = {text}").get("list")
        except (ValueError, RecursionError):
            return text
    return [part.strip() for part in text.split(",") if part.strip()]


def texts(accepts: str) -> Kind[tuple[str, ...]]:
    """Build the kind "list of texts"."""

    def convert(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise _wrong_type("a list of texts", value)
        found = tuple(_text_of(each, "a list of texts only") for each in value)
        if "" in found:
            raise ValueError("holds an empty text")
        return found

    return Kind(accepts, convert, _list_from_text)


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry a user or password; use etcd.username and password_file")
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"must be URLs with http:// or https://, not {shown(url)}")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"has an impossible port in {shown(url)}") from error
    if not parts.hostname or re.search(r"\s", url):
        raise ValueError(f"has no host in {shown(url)}")
    try:
        parts.hostname.encode("idna")  # what every look-up of the name begins with
    except UnicodeError:
        raise ValueError(f"has no possible host name in {shown(url)}") from None
    if not port:
        raise ValueError(f"needs a port in {shown(url)}, such as :2379")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"must end after the port, unlike {shown(url)}; keys go to etcd.prefix")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def listen_address() -> Kind[str]:
    """Build the kind "IPv4 address and port to listen on, or empty"."""
    accepts = "address:port such as 127.0.0.1:9559"

    def convert(value: object) -> str:
        text = _text_of(value, accepts)
        if not text:
            return ""
        host, _, port = text.rpartition(":")
        try:
            read_address(host)
        except ValueError:
            raise ValueError(f"must be {accepts}, not {shown(text)}") from None
        if not 0 < (whole_number(port) or 0) < 1 << 16:
            raise ValueError(f"must be {accepts}, not {shown(text)}")
        return text

    return Kind(accepts, convert)


def endpoints() -> Kind[tuple[str, ...]]:
    """Build the kind "etcd's URLs, or none: to be found"."""
    list_of_texts = texts("list of URLs, http://host:port or https://host:port")

    def convert(value: object) -> tuple[str, ...]:
        found = [_endpoint(each) for each in list_of_texts.convert(value)]
        if len({url.partition(":")[0] for url in found}) > 1:
            raise ValueError("mixes http:// and https://; the client uses one for all")
        return tuple(dict.fromkeys(found))

    return Kind(list_of_texts.accepts, convert, _list_from_text)


def _parse_address(value: object) -> Address:
    text = _text_of(value, "an IPv4 address")
    try:
        return read_address(text)
    except ValueError:
        raise ValueError(f"must be an IPv4 address, not {shown(text)}") from None


def address() -> Kind[Address | None]:
    """Build the kind "IPv4 address or nothing", any address."""
    accepts = "IPv4 address"
    return Kind(accepts, lambda value: None if value == "" else _parse_address(value))


def optional_address() -> Kind[Address | None]:
    """Build the kind "IPv4 address that a host can have, or nothing"."""

    def convert(value: object) -> Address | None:
        if value == "":
            return None
        found = _parse_address(value)
        if found.is_multicast or found.is_loopback or found.is_unspecified or found.is_reserved:
            raise ValueError(f"must be an address that peers can reach, not {found}")
        return found

    return Kind("IPv4 address of this host", convert)


def mesh_cidr() -> Kind[Network | None]:
    """Build the kind "range that a mesh can have"."""
    accepts = "IPv4 range such as 10.64.0.0/10"

    def convert(value: object) -> Network | None:
        text = _text_of(value, accepts)
        try:
            found = read_network(text)
        except ValueError:
            found = _loose_network(text)
            if str(found) != text:
                raise ValueError(
                    f"has host bits set; {found} is the range of {shown(text)}"
                ) from None
        shortest, longest = family_of(found).mesh_lengths
        if not shortest <= found.prefixlen <= longest:
            raise ValueError(f"must be a /{shortest} to /{longest}, not {found}")
        other = forbidden_range(found)
        if other is not None:
            raise ValueError(f"must not be in {other}, unlike {found}: no host may have those")
        return found

    return Kind(accepts, convert)


def ranges() -> Kind[tuple[Network, ...]]:
    """Build the kind "list of ranges, IPv4 or IPv6"."""
    list_of_texts = texts("list of ranges such as 10.0.0.0/8")

    def convert(value: object) -> tuple[Network, ...]:
        found = []
        for text in list_of_texts.convert(value):
            try:
                found.append(ip_network(text))
            except ValueError as error:
                raise ValueError(f"holds {shown(text)}: {error}") from None
        return tuple(dict.fromkeys(found))

    return Kind(list_of_texts.accepts, convert, _list_from_text)


def _loose_network(text: str) -> Network:
    try:
        return read_network(text, strict=False)
    except ValueError:
        raise ValueError(f"must be an IPv4 range such as 10.64.0.0/10, not {shown(text)}") from None


def absolute_path() -> Kind[Path]:
    """Build the kind "absolute path"."""

    def convert(value: object) -> Path:
        text = _text_of(value, "an absolute path")
        if not text.startswith("/"):
            raise ValueError(f"must be an absolute path, not {shown(text)}")
        return Path(text)

    return Kind("absolute path", convert)


def optional_file() -> Kind[Path | None]:
    """Build the kind "absolute path of a file that is there, or nothing".

    A file that cannot be looked at for want of rights is accepted: ``agentctl`` reads the
    same settings as any user. Its reader reports it when it is needed.
    """
    path = absolute_path()

    def convert(value: object) -> Path | None:
        if value == "":
            return None
        found = path.convert(value)
        try:
            found.stat()
        except PermissionError:
            return found
        except OSError as error:
            raise ValueError(f"{shown(str(found))}: {error.strerror}") from error
        return found

    return Kind("absolute path of a file", convert)


def uplink() -> Kind[str]:
    """Build the kind "which interface": a name, a regular expression, a CIDR, or "route to X"."""
    accepts = 'interface name, regular expression, CIDR, or "route to ADDRESS"'

    def convert(value: object) -> str:
        text = _text_of(value, accepts).strip()
        if text.startswith("route to "):
            _parse_address(text.removeprefix("route to ").strip())
        elif "/" in text:
            _loose_network(text)
        else:
            try:
                re.compile(text)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"is no regular expression: {error} ({shown(text)})") from error
        return text

    return Kind(accepts, convert)
