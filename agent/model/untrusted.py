"""Read JSON of other writers: sizes, types and ranges are checked before use.

Field names are matched as Go's encoding/json does, without regard to case, because flannel
reads the same records with it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeVar

from agent.model.backend import BackendChoice, BackendData
from agent.model.family import Address, Network, can_be_host, read_address, read_network
from agent.model.mesh import HostId, is_leasable

__all__ = [
    "HOST_ID",
    "OURS",
    "Fields",
    "clean_name",
    "leasable",
    "parse_host_id",
    "parse_object",
    "quote",
]

_T = TypeVar("_T")

OURS: Final = "Hostmesh"
"""The object that has Hostmesh's additions in flannel's records."""

HOST_ID: Final = re.compile(r"[0-9a-f]{32}")
"""How a host id looks, in keys and in values."""

_MAX_SHOWN = 80
_NAME = re.compile(r"[\x21-\x7e]{1,253}")  # printable ASCII without the space
_NOT_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_NETWORK = re.compile(r"[0-9a-fA-F.:]{2,45}/[0-9]{1,3}")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_NO_MAC: Final = "00:00:00:00:00:00"
_MAX_INTEGER = 2**53


def quote(text: str | bytes) -> str:
    """Show text of unknown origin: ASCII without control characters, cut to a line's length."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in raw[:200])  # noqa: PLR2004 - ASCII's printable range
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…"


def clean_name(name: str) -> str:
    """Make a host name that every reader accepts out of one that this host has."""
    return _NOT_NAME.sub("-", name)[:253] or "unnamed"


def parse_host_id(text: str) -> HostId:
    """Read a host id."""
    if not HOST_ID.fullmatch(text):
        raise ValueError("not a host id of 32 hex digits")
    return HostId(sys.intern(text))  # a host has several records with it


def leasable(subnet: Network) -> Network:
    """Return ``subnet``; raise ValueError where no host can hold it."""
    if not is_leasable(subnet):
        raise ValueError(f"a /{subnet.prefixlen} is not a subnet of a mesh")
    return subnet


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


class Fields:
    """A JSON object whose fields are taken one by one with their type and range checked.

    Every method raises ValueError with a reason fit to be shown.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = {str(name).lower(): value for name, value in fields.items()}

    @classmethod
    def parse(cls, value: bytes) -> Fields:
        """Read an object from a record's value."""
        return cls(parse_object(value))

    def text(self, name: str, *, default: str | None = None, longest: int = 253) -> str:
        """Return printable ASCII without spaces; ``default`` (None: an error) when absent."""
        found = self._fields.get(name.lower())
        if found is None or (found == "" and default is not None):
            return self._absent(name, default)
        if not isinstance(found, str) or not _NAME.fullmatch(found) or len(found) > longest:
            raise ValueError(f"{name} is not a name")
        return sys.intern(found)

    def integer(self, name: str, low: int, high: int, *, default: int | None = None) -> int:
        """Return an integer from ``low`` to ``high``."""
        found = self._fields.get(name.lower())
        if found is None:
            return self._absent(name, default)
        if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
            raise ValueError(f"{name} is not an integer from {low} to {high}")
        return found

    def time_s(self, name: str) -> float | None:
        """Return a Unix time, None when absent."""
        found = self._fields.get(name.lower())
        if found is None:
            return None
        good = isinstance(found, int | float) and not isinstance(found, bool)
        if not good or not 0 <= found < _MAX_INTEGER:
            raise ValueError(f"{name} is not a time")
        return float(found)

    def address(self, name: str, *, default: Address | None = None) -> Address:
        """Return an address."""
        found = self._fields.get(name.lower())
        if found is None and default is not None:
            return default
        try:
            if isinstance(found, str):
                return read_address(found)
        except ValueError:
            pass
        raise ValueError(f"{name} is {'missing' if found is None else 'not an IPv4 address'}")

    def node_address(self, name: str) -> Address:
        """Return an IPv4 address that a host can have."""
        found = self.address(name)
        if not can_be_host(found):
            raise ValueError(f"{name} {found} is not the address of a host")
        return found

    def network(self, name: str, *, default: Network | None = None, strict: bool = True) -> Network:
        """Return a network as address/length; unless ``strict``, host bits are dropped."""
        found = self._fields.get(name.lower())
        if found is None and default is not None:
            return default
        return _network(name, found, strict=strict)

    def addresses(self, name: str, most: int) -> tuple[Address, ...]:
        """Return a list of at most ``most`` IPv4 addresses, () when absent."""
        return tuple(Fields({name: each}).address(name) for each in self._list(name, most))

    def networks(self, name: str, most: int) -> tuple[Network, ...]:
        """Return a list of at most ``most`` IPv4 networks, () when absent."""
        return tuple(_network(name, each, strict=True) for each in self._list(name, most))

    def texts(self, name: str, most: int, *, longest: int = 253) -> tuple[str, ...]:
        """Return a list of at most ``most`` texts as :meth:`text` reads them, () when absent."""
        return tuple(
            Fields({name: each}).text(name, longest=longest) for each in self._list(name, most)
        )

    def _list(self, name: str, most: int) -> list[Any]:
        found = self._fields.get(name.lower())
        if found is None:
            return []
        if not isinstance(found, list) or len(found) > most:
            raise ValueError(f"{name} is not a list of at most {most}")
        return found

    def flag(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        found = self._fields.get(name.lower())
        if found is None:
            return default
        if not isinstance(found, bool):
            raise ValueError(f"{name} is not true or false")  # noqa: TRY004 - one error for readers
        return found

    def object(self, name: str) -> Fields | None:
        """Return an object, None when absent."""
        found = self._fields.get(name.lower())
        if found is None:
            return None
        if not isinstance(found, dict):
            raise ValueError(f"{name} is not an object")  # noqa: TRY004 - one error for readers
        return Fields(found)

    def objects(self, name: str, most: int) -> tuple[Fields, ...]:
        """Return a list of at most ``most`` objects, () when absent."""
        found = self._list(name, most)
        if not all(isinstance(each, dict) for each in found):
            raise ValueError(f"{name} has an item that is not an object")
        return tuple(map(Fields, found))

    def mac(self, name: str) -> str:
        """Return the MAC address of one host: neither a group's nor all zeros."""
        found = self.text(name).lower()
        if not _MAC.fullmatch(found) or int(found[:2], 16) & 1 or found == _NO_MAC:
            raise ValueError(f"{name} is not the MAC address of a host")
        return found

    def backend_data(self, name: str, *, without: str = "") -> BackendData | None:
        """Return an object as it is, but for one field; None when no backend can use it."""
        found = self._fields.get(name.lower())
        if not isinstance(found, dict):
            return None
        kept = {key: value for key, value in found.items() if key.lower() != without.lower()}
        return BackendData.of(kept)

    def backend_choice(self, name: str, data: str) -> BackendChoice | None:
        """Return a backend's name, a field ``Type``, with its data; None when absent.

        Args:
            data: Name of the field that holds the data; "" for all fields but ``Type``.
        """
        found = self.object(name)
        if found is None:
            return None
        kept = found.backend_data(data) if data else self.backend_data(name, without="Type")
        return BackendChoice(found.text("Type", longest=32), kept)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._fields.get(name.lower()) is not None

    @staticmethod
    def _absent(name: str, default: _T | None) -> _T:
        if default is None:
            raise ValueError(f"{name} is missing")
        return default


def _network(name: str, found: object, *, strict: bool) -> Network:
    try:
        if isinstance(found, str) and _NETWORK.fullmatch(found):
            return read_network(found, strict=strict)
    except ValueError:
        pass
    raise ValueError(f"{name} is {'missing' if found is None else 'not an IPv4 network'}")


def parse_object(value: bytes) -> dict[str, Any]:
    """Read a record's value as a JSON object.

    Raises:
        ValueError: Not UTF-8, not JSON, nested too deep, or not an object.
    """
    try:
        found = json.loads(value.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ValueError("the value is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("the value is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("the value is not a JSON object")  # noqa: TRY004 - one error for readers
    return found
