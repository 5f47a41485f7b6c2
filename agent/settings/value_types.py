"""The kinds of values in agent.toml: each converts one value and says what it accepts.

A :class:`Kind` takes the value as TOML gave it. From the environment and from flags a value comes
as text; ``from_text`` makes of it what TOML would have given. ``convert`` raises
:class:`ValueError` with the fault, without the key: the loader adds it.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import SplitResult, urlsplit

from agent.model import forbidden_range
from agent.model.family import Address, Network, family_of, read_address, read_network
from agent.settings.text import shown, whole_number

__all__ = [
    "ADDRESS",
    "BOOLEAN",
    "CIDR",
    "ENDPOINTS",
    "FILE",
    "LISTEN",
    "NAME_PATTERNS",
    "NODE_ADDRESS",
    "PATH",
    "RANGES",
    "UPLINK",
    "Kind",
    "choice",
    "integer",
    "pattern",
    "seconds",
    "setting",
    "texts",
]

T = TypeVar("T")

_MAX_TEXT_CHARS = 4096
_NAME_PATTERN = re.compile(r"[a-z0-9*?-]{1,63}")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of value.

    Attributes:
        accepts: The values it accepts, as docs/settings.md says it.
        convert: The TOML value to the setting; ValueError says what is wrong.
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


def _number_of(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def integer(
    low: int, high: int, unit: str = "", *, refused: dict[int, str] | None = None
) -> Kind[int]:
    """Build the kind "whole number from ``low`` to ``high``"; ``refused`` maps numbers to why."""

    def convert(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(f"a whole number from {low} to {high}", value)
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}, not {shown(value)}")
        if refused and value in refused:
            raise ValueError(f"must not be {value}: {refused[value]}")
        return value

    accepts = f"whole number, {low} to {high}" + (f" ({unit})" if unit else "")
    return Kind(accepts, convert, _number_of)


def seconds(low: float, high: float) -> Kind[float]:
    """Build the kind "seconds from ``low`` to ``high``", fractions allowed."""

    def convert(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(f"a number of seconds from {low:g} to {high:g}", value)
        if not low <= value <= high:  # never true of nan
            raise ValueError(f"must be from {low:g} to {high:g} seconds, not {shown(value)}")
        return float(value)

    return Kind(f"seconds, {low:g} to {high:g}", convert, _number_of)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type("true or false", value)
    return value


_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True)
_BOOLEANS |= dict.fromkeys(("false", "no", "off", "0"), False)
BOOLEAN = Kind("true or false", _boolean, lambda text: _BOOLEANS.get(text.lower(), text))


def _checked(value: object, wanted: str) -> str:
    """Return text that is fit for a message and a log. Raises ValueError."""
    if not isinstance(value, str):
        raise _wrong_type(wanted, value)
    if len(value) > _MAX_TEXT_CHARS:
        raise ValueError(f"is longer than {_MAX_TEXT_CHARS} characters")
    if not value.isprintable():
        raise ValueError(f"holds control characters ({shown(value)})")
    return value


class _OtherError(ValueError):
    """A fault that has a message of its own."""


def _text(accepts: str, parse: Callable[[str], T], wanted: str = "") -> Kind[T]:
    """Build the kind of text that ``parse`` takes; but for _OtherError a fault is "must be …"."""
    wanted = wanted or accepts

    def convert(value: object) -> T:
        text = _checked(value, wanted)
        try:
            return parse(text)
        except _OtherError:
            raise
        except ValueError:
            raise ValueError(f"must be {wanted}, not {shown(text)}") from None

    return Kind(accepts, convert)


def _optional(kind: Kind[T]) -> Kind[T | None]:
    """Accept an empty text as None, too."""
    return Kind(kind.accepts, lambda value: None if value == "" else kind.convert(value))


def choice(values: Iterable[T]) -> Kind[T]:
    """Build the kind "one of ``values``", which are texts."""
    by_name = {str(each): each for each in values}

    def parse(text: str) -> T:
        if text not in by_name:
            raise ValueError
        return by_name[text]

    return _text("one of " + ", ".join(by_name), parse)


def pattern(accepts: str, regex: str) -> Kind[str]:
    """Build the kind "text that ``regex`` matches whole"."""
    compiled = re.compile(regex)

    def parse(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError
        return text

    return _text(accepts, parse)


def _absolute(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError
    return Path(text)


PATH = _text("absolute path", _absolute, "an absolute path")


def _file(value: object) -> Path:
    """Return the path of a file that exists.

    A file that this user may not look at is accepted: ``agentctl`` reads the same settings as any
    user. Its reader reports it when it is needed.
    """
    found = PATH.convert(value)
    try:
        found.stat()
    except PermissionError:
        return found
    except OSError as error:
        raise ValueError(f"{shown(str(found))}: {error.strerror}") from error
    return found


FILE = _optional(Kind("absolute path of a file", _file))


def _listen(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text:
        read_address(host)
        if not 0 < (whole_number(port) or 0) < 1 << 16:
            raise ValueError
    return text


LISTEN = _text("address:port such as 127.0.0.1:9559", _listen)
"""Empty: nowhere."""


def _node_address(text: str) -> Address:
    found = read_address(text)
    if found.is_multicast or found.is_loopback or found.is_unspecified or found.is_reserved:
        raise _OtherError(f"must be an address that peers can reach, not {found}")
    return found


ADDRESS = _optional(_text("IPv4 address", read_address, "an IPv4 address"))
NODE_ADDRESS = _optional(_text("IPv4 address of this host", _node_address, "an IPv4 address"))


def _cidr(text: str) -> Network:
    found = read_network(text, strict=False)
    if str(found) != text:
        raise _OtherError(f"has host bits set; {found} is the range of {shown(text)}")
    shortest, longest = family_of(found).mesh_lengths
    if not shortest <= found.prefixlen <= longest:
        raise _OtherError(f"must be a /{shortest} to /{longest}, not {found}")
    other = forbidden_range(found)
    if other is not None:
        raise _OtherError(f"must not be in {other}, unlike {found}: no host may have those")
    return found


_RANGE = "IPv4 range such as 10.64.0.0/10"
CIDR: Kind[Any] = _text(_RANGE, _cidr, f"an {_RANGE}")
"""A range that a mesh can have."""


def _uplink(text: str) -> str:
    text = text.strip()
    try:
        if text.startswith("route to "):
            ADDRESS.convert(text.removeprefix("route to ").strip())
        elif "/" in text:
            read_network(text, strict=False)
        else:
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise _OtherError(f"is no regular expression: {error} ({shown(text)})") from error
    except ValueError as error:
        fault = f"must be an {_RANGE}, not {shown(text)}" if "/" in text else str(error)
        raise _OtherError(fault) from None
    return text


UPLINK = _text('interface name, regular expression, CIDR, or "route to ADDRESS"', _uplink)


def _listed(text: str) -> object:
    if text.lstrip().startswith("["):
        try:
            return tomllib.loads(f"list = {text}").get("list")
        except (ValueError, RecursionError):
            return text
    return [part.strip() for part in text.split(",") if part.strip()]


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise _wrong_type("a list of texts", value)
    found = [_checked(each, "a list of texts only") for each in value]
    if "" in found:
        raise ValueError("holds an empty text")
    return found


def texts(accepts: str) -> Kind[tuple[str, ...]]:
    """Build the kind "list of texts"."""
    return Kind(accepts, lambda value: tuple(_texts(value)), _listed)


def _name_patterns(value: object) -> tuple[str, ...]:
    found = tuple(_texts(value))
    for text in found:
        if not _NAME_PATTERN.fullmatch(text):
            raise ValueError(f"holds {shown(text)}, and names have lower-case letters, digits, -")
    return found


NAME_PATTERNS = Kind("list of names or patterns such as web-*", _name_patterns, _listed)


def _ranges(value: object) -> tuple[Network, ...]:
    """Return IPv4 and IPv6 ranges, each once."""
    found: dict[Network, None] = {}
    for text in _texts(value):
        try:
            found[ip_network(text)] = None
        except ValueError as error:
            raise ValueError(f"holds {shown(text)}: {error}") from None
    return tuple(found)


RANGES = Kind("list of ranges such as 10.0.0.0/8", _ranges, _listed)


def _endpoints(value: object) -> tuple[str, ...]:
    """Return etcd's URLs, each once; none: to be found."""
    found = [_endpoint(each) for each in _texts(value)]
    if len({url.partition(":")[0] for url in found}) > 1:
        raise ValueError("mixes http:// and https://; the client uses one for all")
    return tuple(dict.fromkeys(found))


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry a user or password; use etcd.username and password_file")
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"must be URLs with http:// or https://, not {shown(url)}")
    port = _port(parts, url)
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"must end after the port, unlike {shown(url)}; keys go to etcd.prefix")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def _port(parts: SplitResult, url: str) -> int:
    """Return the port of a URL whose host and port are possible. Raises ValueError."""
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"has an impossible port in {shown(url)}") from error
    if not parts.hostname or re.search(r"\s", url):
        raise ValueError(f"has no host in {shown(url)}")
    try:
        parts.hostname.encode("idna")  # every look-up of the name begins with this
    except UnicodeError:
        raise ValueError(f"has no possible host name in {shown(url)}") from None
    if not port:
        raise ValueError(f"needs a port in {shown(url)}, such as :2379")
    return port


ENDPOINTS = Kind("list of URLs, http://host:port or https://host:port", _endpoints, _listed)
