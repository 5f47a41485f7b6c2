"""pyroute2's encoders of messages, without the rest of the package.

Importing ``pyroute2`` loads its database, SQLite, asyncio and 160 modules more: 10 MB for a few
classes. Its modules are imported here under a package whose ``__init__`` has not run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec

from agent.errors import DependencyMissing

__all__ = ["rtmsg"]

_PACKAGE = "pyroute2"


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


with _package_without_init():
    from pyroute2.netlink.rtnl.rtmsg import rtmsg
