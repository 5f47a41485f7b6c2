"""Documents and etcd without the agent. Imports etcd's packages only when called: 0.2 s, 20 MB."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from agent.ctl.client import NO_ANSWER
from agent.errors import HostmeshError

if TYPE_CHECKING:
    from agent.ctl.context import Context
    from agent.registry.registry import Registry

__all__ = [
    "ask",
    "log_to_stderr",
    "registry",
    "without_agent",
]


_REQUESTS = 3  # login, reading, writing; each tries every endpoint
_INSTEAD = "from etcd, the kernel and this host's files instead"


@contextmanager
def registry(context: Context) -> Iterator[Registry]:
    """Connect to the etcd that the settings name.

    Raises:
        EtcdUnavailable, EtcdAuthError, EtcdError: From what is called on it.
    """
    log_to_stderr()
    from agent.etcd.discovery import client_for  # noqa: PLC0415 - costs 0.2 s and 20 MB
    from agent.registry.copy import bounds_of  # noqa: PLC0415 - the same
    from agent.registry.registry import Registry  # noqa: PLC0415 - the same

    settings = context.settings
    endpoints = settings.etcd.endpoints
    at_most_s = _REQUESTS * settings.etcd.call_timeout_s * max(1, len(endpoints))
    what = f"etcd ({', '.join(endpoints) or 'searched in DNS'})"
    with (
        context.progress.waiting_for(what, at_most_s),
        closing(client_for(settings)) as client,
        _naming_the_operator(context),
    ):
        yield Registry(client, settings.etcd.prefix, bounds=bounds_of(settings))


@contextmanager
def _naming_the_operator(context: Context) -> Iterator[None]:
    from agent.etcd.errors import PermissionDeniedError  # noqa: PLC0415 - costs 0.2 s

    try:
        yield
    except PermissionDeniedError as error:
        given = context.args.as_operator
        error.hint = (
            f"{given} names an account that may not write that: give --as-operator operator.toml of"
            " deploy/etcd/hosts.sh"
            if given
            else "add --as-operator FILE, a file with the credentials of an account that may write"
            " the mesh's config in [etcd]: operator.toml of deploy/etcd/hosts.sh"
        )
        raise


def ask(context: Context, target: str) -> dict[str, Any]:
    """Return the agent's document; without an agent the same of this host, and say so.

    Args:
        target: Such as "/v1/status".

    Raises:
        HostmeshError: The agent's error, or it cannot be had without an agent.
    """
    try:
        return context.client.get(target)
    except NO_ANSWER as error:
        context.remark(f"{error.message}; {_INSTEAD}")
        try:
            return without_agent(context, target)
        except HostmeshError as offline:
            offline.hint = offline.hint or error.hint
            raise


def without_agent(context: Context, target: str) -> dict[str, Any]:
    """Return a document of the control socket made without the agent.

    Raises:
        HostmeshError: It cannot be had.
    """
    log_to_stderr()
    with context.progress.waiting_for("etcd, the kernel and this host's files", context.timeout_s):
        from agent.standalone.offline import DOCUMENTS  # noqa: PLC0415 - imports every package

        document = dict(DOCUMENTS[target](context.settings))
    for line in document.pop("remarks", ()):
        context.remark(line)
    return document


def log_to_stderr() -> None:
    """Log warnings to stderr: stdout is for the answer."""
    from agent import log  # noqa: PLC0415 - structlog
    from agent.settings import LogSettings  # noqa: PLC0415 - the same

    log.configure(
        LogSettings(level="warning", format="console"),
        stream=sys.stderr,
        is_tty=sys.stderr.isatty(),
    )
