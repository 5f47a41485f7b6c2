"""Test that this kernel and this iptables accept the agent's routes, rules and sets.

A thread makes a network namespace of its own, writes the real ones there, and the namespace ends
with it. Module names or kernel versions would say less. The host may load modules for it; nothing
else of it changes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Final

from agent.errors import HostmeshError, KernelError
from agent.kernel.firewall import open_firewall
from agent.kernel.tables.routes import RouteTable
from agent.mesh.firewall import DesiredFirewall, Ingress
from agent.model import Route, RouteKind, Severity
from agent.reconcile.interfaces import Operation, OperationKind, Reason

__all__ = ["trial"]

_CLONE_NEWNET: Final = 0x40000000  # sched.h
_TIMEOUT_S: Final = 30.0
_CIDR: Final = ip_network("10.64.0.0/10")
_LEASE: Final = ip_network("10.64.0.0/16")
_PEER: Final = ip_network("192.0.2.1")


def trial(protocol: int, table: int, variant: str) -> dict[str, HostmeshError | None]:
    """Write routes, and rules with their set, into a namespace made for it.

    Args:
        protocol, table: Of the routes.
        variant: "auto", "nft" or "legacy".

    Returns:
        "routes" and "firewall", each with its error or None.

    Raises:
        KernelError: No namespace could be made (not root), or the trial did not end.
    """
    steps: dict[str, Callable[[], None]] = {
        "routes": lambda: _routes(protocol, table),
        "firewall": lambda: _firewall(variant),
    }
    found: dict[str, HostmeshError | None] = {}
    failed: list[HostmeshError] = []
    thread = threading.Thread(target=_run, args=(steps, found, failed), name="trial", daemon=True)
    thread.start()
    thread.join(_TIMEOUT_S)
    if failed:
        raise failed[0]
    if thread.is_alive() or len(found) < len(steps):
        raise KernelError(f"the trial in a namespace did not end within {_TIMEOUT_S:g} s")
    return found


def _run(
    steps: Mapping[str, Callable[[], None]],
    found: dict[str, HostmeshError | None],
    failed: list[HostmeshError],
) -> None:
    try:
        _leave_namespace()
    except KernelError as error:
        failed.append(error)
        return
    for name, step in steps.items():
        try:
            step()
        except HostmeshError as error:
            found[name] = error
        else:
            found[name] = None


def _leave_namespace() -> None:
    """Put this thread, and what it starts, into a new network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise KernelError(
            f"no network namespace can be made to try things in: {reason}",
            hint="run it as root, on a kernel with network namespaces (Docker needs them too)",
        )


def _routes(protocol: int, table: int) -> None:
    wanted = Route(destination=_CIDR, kind=RouteKind.UNREACHABLE, protocol=protocol, table=table)
    routes = RouteTable(protocol, table)
    try:
        missing = Operation(OperationKind.REPLACE, wanted, Reason.MISSING)
        for result in routes.apply((missing,)):
            if result.error:
                raise KernelError(
                    f"the kernel refuses a route of protocol {protocol}: {result.error}"
                )
        if not routes.list_all().own:
            raise KernelError(f"the kernel does not keep routes of protocol {protocol}")
    finally:
        routes.close()


def _firewall(variant: str) -> None:
    firewall = open_firewall(variant)
    wanted = DesiredFirewall(cidr=_CIDR, lease=_LEASE, ingress=(Ingress("lo", frozenset({_PEER})),))
    firewall.want_sources(wanted)
    report = firewall.apply(wanted)
    errors = [each.cause for each in report.conditions if each.severity is Severity.ERROR]
    if errors:
        raise KernelError("; ".join(errors))
