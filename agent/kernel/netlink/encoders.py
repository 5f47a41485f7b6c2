"""Messages that pyroute2 encodes: routes, links and addresses.

Importing ``pyroute2`` runs an ``__init__`` that loads its database, SQLite, asyncio and 160 more
modules: 10 MB for a few classes. Here the modules with the classes are imported under a package
whose ``__init__`` has not run, and only when the first message of their kind is written.

An encoder takes 0.3 ms for a message. So a caller that writes thousands keeps what is the same in
all of them (``route_body``), and neighbours, of which each is another, are packed directly.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any

from agent.errors import DependencyMissing
from agent.kernel.netlink.message import HEADER

__all__ = ["encode"]

_PACKAGE = "pyroute2"
_importing = threading.Lock()


@contextmanager
def _package_without_init() -> Iterator[None]:
    """Have the package's modules imported alone. A later import of the package is complete."""
    if _PACKAGE in sys.modules:
        yield
        return
    spec = find_spec(_PACKAGE)
    if spec is None:
        raise DependencyMissing(
            "the Python package pyroute2 is not installed",
            hint="install the locked dependencies: pip install -r requirements.lock",
        )
    sys.modules[_PACKAGE] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


@functools.cache
def _message_class(name: str) -> Any:  # noqa: ANN401 - pyroute2 ships no types
    with _importing, _package_without_init():
        return getattr(import_module(f"{_PACKAGE}.netlink.rtnl.{name}"), name)


def encode(name: str, fields: dict[str, int], attributes: Sequence[tuple[str, object]]) -> bytes:
    """Return the body of a message, without its header.

    Args:
        name: pyroute2's class: "rtmsg", "ifinfmsg" or "ifaddrmsg".
        fields: Of the message's fixed part.
        attributes: By pyroute2's names, nested ones as ``{"attrs": [...]}``.

    Raises:
        DependencyMissing: pyroute2 is not installed.
    """
    message = _message_class(name)()
    for field, value in fields.items():
        message[field] = value
    message["attrs"] = list(attributes)
    message.encode()
    frame = bytes(message.data)
    return frame[HEADER.size : HEADER.unpack_from(frame)[0]]
