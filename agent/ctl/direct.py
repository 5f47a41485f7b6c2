"""etcd asked directly, for when no agent answers. Imports the etcd room only when called."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from agent.ctl.client import NO_ANSWER
from agent.errors import HostmeshError
from agent.model.family import Network

if TYPE_CHECKING:
    from agent.ctl.context import Context
    from agent.model import HostId, View
    from agent.registry.registry import Registry
    from agent.settings import Settings
    from agent.standalone.offline import Seen

__all__ = [
    "ask",
    "log_to_stderr",
    "own_host_id",
    "registry",
    "time_left",
    "view",
    "without_agent",
]


@contextmanager
def registry(settings: Settings) -> Iterator[Registry]:
    """Connect to the etcd that the settings name.

    Raises:
        EtcdUnavailable, EtcdAuthError, EtcdError: From what is called on it.
    """
    log_to_stderr()
    from agent.etcd.discovery import client_for  # noqa: PLC0415 - the same
    from agent.registry.copy import bounds_of  # noqa: PLC0415 - costs 0.2 s and 20 MB
    from agent.registry.registry import Registry  # noqa: PLC0415 - the same

    with closing(client_for(settings.etcd)) as client:
        yield Registry(client, settings.etcd.prefix, bounds=bounds_of(settings))


def view(settings: Settings) -> Seen:
    """The mesh as etcd has it, else as this host's own copy has it, and then why.

    Raises:
        EtcdUnavailable, EtcdAuthError, EtcdError: Neither can be had.
    """
    log_to_stderr()
    from agent.standalone.offline import view_offline  # noqa: PLC0415 - pulls in every room

    return view_offline(settings)


def ask(context: Context, target: str, instead: str) -> dict[str, Any]:
    """Return the agent's document; with a remark the same of this host when no agent answers.

    Args:
        target: Such as "/v1/status".
        instead: Where it is from then.
    """
    try:
        return context.client.get(target)
    except NO_ANSWER as error:
        context.remark(f"{error.message}; {instead}")
        return without_agent(context, target)


def without_agent(context: Context, target: str) -> dict[str, Any]:
    """Make a document of the control socket without the agent.

    Raises:
        HostmeshError: It cannot be had.
    """
    log_to_stderr()
    from agent.standalone.offline import DOCUMENTS  # noqa: PLC0415 - pulls in every package

    return dict(DOCUMENTS[target](context.settings))


def time_left(settings: Settings, view: View) -> Mapping[Network, float]:
    """How long flannel's leases in a view last, as far as etcd says so in a moment."""
    if view.cached or all(each.ttl_s is not None for each in view.leases):
        return {}
    with registry(settings) as found:
        from agent.registry.flannel_ttl import FlannelTtls  # noqa: PLC0415 - as above

        return FlannelTtls(found.client.time_to_live_s).of(view.leases)


def log_to_stderr() -> None:
    """Keep the rooms' log off stdout, where the answer goes; warnings only, in words."""
    from agent import log  # noqa: PLC0415 - structlog, only where a room is used
    from agent.settings import LogSettings  # noqa: PLC0415 - the same

    log.configure(
        LogSettings(level="warning", format="console"),
        stream=sys.stderr,
        is_tty=sys.stderr.isatty(),
    )


def own_host_id() -> HostId | None:
    """Tell which host this is; None where machine-id cannot be read: no row is marked then."""
    from agent.registry.own.identity import host_id, read_machine_id  # noqa: PLC0415 - the same room

    try:
        return host_id(read_machine_id())
    except HostmeshError:
        return None
