"""Which interface is the uplink: it carries the node address, by which peers reach this host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from agent.errors import KernelError
from agent.kernel.lookup import Decision, path_to
from agent.model import OWN_BRIDGE, HostFacts, Link, Route, Uplink
from agent.model.family import (
    Address,
    Interface,
    Network,
    family_of,
    is_host,
    read_address,
    read_network,
)
from agent.settings import HostSettings

__all__ = ["as_peers_see_it", "choose_uplink", "uplink_target"]

_SCOPE_LINK: Final = 253
_ROUTE_TO: Final = "route to "
_DOCKERS_BRIDGE: Final = re.compile(rf"docker0|docker_gwbridge|br-[0-9a-f]{{12}}|{OWN_BRIDGE}")


def as_peers_see_it(uplink: Uplink, host: HostSettings, wireguard_key: str) -> Uplink:
    """Return the uplink with what the settings and the key say of how peers reach this host."""
    return replace(
        uplink,
        link=host.link,
        public_endpoint=host.public_endpoint,
        wireguard_key=wireguard_key,
    )


def choose_uplink(
    facts: HostFacts,
    setting: str = "",
    route_to: Address | None = None,
    *,
    node_address: Address | None = None,
    mesh: tuple[Network, ...] = (),
    lookup: Callable[[Address], Decision] = path_to,
) -> Uplink:
    """Return the interface that carries the node address.

    Args:
        facts: A fresh look at the host.
        setting: ``""``, an interface's name, a CIDR that holds its address, ``route to ADDRESS``,
            or a regular expression for the whole of its name; tried in this order. A CIDR and an
            expression never choose a bridge of Docker's or a link inside the mesh.
        route_to: An etcd endpoint's address: without a setting, the way there decides. When it
            is this very host, or None, the default route does.
        node_address: The address to use on it, where the interface has several.
        mesh: The mesh's CIDRs, as far as they are known.
        lookup: How to ask the kernel for a path.

    Raises:
        KernelError: No interface qualifies; the hint says what to set.
    """
    setting = setting.strip()
    if not setting and node_address is not None:
        return _by_network(facts, family_of(node_address).host(node_address))
    chosen = _by_setting(facts, setting, route_to, mesh, lookup)
    if node_address is None or node_address == chosen.node_address:
        return chosen
    link = next(each for each in facts.links if each.index == chosen.index)
    if node_address not in _plain(link.addresses):
        raise KernelError(
            f"the uplink {link.name} does not have the address {node_address} that agent.toml "
            "sets as node address",
            hint=f"there are {_inventory(facts)}",
        )
    return _uplink(facts, link, node_address)


def _by_setting(
    facts: HostFacts,
    setting: str,
    route_to: Address | None,
    mesh: tuple[Network, ...],
    lookup: Callable[[Address], Decision],
) -> Uplink:
    if not setting:
        return _by_route(facts, route_to, lookup)
    if setting.startswith(_ROUTE_TO):
        return _by_route(facts, _parse_target(setting), lookup)
    named = next((link for link in facts.links if link.name == setting), None)
    if named is not None:
        return _uplink(facts, named, None)
    others = replace(facts, links=tuple(e for e in facts.links if not _is_containers(e, mesh)))
    network = _parse_network(setting)
    if network is not None:
        return _by_network(others, network)
    return _by_pattern(others, setting)


def _is_containers(link: Link, mesh: tuple[Network, ...]) -> bool:
    """Whether a link leads to this host's containers: no peer is reached by it."""
    if link.own or (link.kind == "bridge" and _DOCKERS_BRIDGE.fullmatch(link.name)):
        return True
    return any(each.ip in cidr for each in link.addresses for cidr in mesh)


def uplink_target(setting: str, route_to: Address | None) -> Address | None:
    """Return the address whose route decides which uplink is chosen, None when no route does.

    Args:
        setting, route_to: As for :func:`choose_uplink`.

    Raises:
        KernelError: ``route to`` something that is no address.
    """
    setting = setting.strip()
    if setting.startswith(_ROUTE_TO):
        return _parse_target(setting)
    return None if setting else route_to


def _parse_target(setting: str) -> Address:
    text = setting.removeprefix(_ROUTE_TO).strip()
    try:
        return read_address(text)
    except ValueError as error:
        raise KernelError(
            f"uplink setting {setting!r}: {text!r} is not an IPv4 address",
            hint='write it as "route to 192.0.2.1"',
        ) from error


def _parse_network(text: str) -> Network | None:
    try:
        return read_network(text, strict=False)
    except ValueError:
        return None


def _by_route(
    facts: HostFacts, target: Address | None, lookup: Callable[[Address], Decision]
) -> Uplink:
    if target is not None:
        path = lookup(target)
        if path.local:
            owner = next((link for link in facts.links if target in _plain(link.addresses)), None)
            if owner is not None and not target.is_loopback:
                return _uplink(facts, owner, target)
        else:
            link = next((each for each in facts.links if each.name == path.link), None)
            if link is not None:
                return _uplink(facts, link, path.source)
    defaults = sorted(
        (route for route in facts.foreign_routes if _is_default(route)),
        key=lambda route: route.metric,
    )
    for route in defaults:
        link = next((each for each in facts.links if each.name == route.link), None)
        if link is not None and link.addresses:
            return _uplink(facts, link, route.prefsrc)
    raise KernelError(
        "no interface leads to etcd or to a default gateway, so the uplink is not known",
        hint="name the uplink in agent.toml",
    )


def _is_default(route: Route) -> bool:
    return route.destination.prefixlen == 0 and route.kind.startswith("unicast")


def _plain(interfaces: Iterable[Interface]) -> tuple[Address, ...]:
    return tuple(interface.ip for interface in interfaces)


def _by_network(facts: HostFacts, network: Network) -> Uplink:
    for link in facts.links:
        for interface in link.addresses:
            if interface.ip in network and not interface.ip.is_loopback:
                return _uplink(facts, link, interface.ip)
    raise KernelError(
        f"no interface has an address in {network}, which agent.toml asks of the uplink",
        hint=f"there are {_inventory(facts)}",
    )


def _by_pattern(facts: HostFacts, pattern: str) -> Uplink:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise KernelError(
            f"uplink setting {pattern!r} is no interface here, no CIDR and no regular "
            f"expression: {error}",
            hint=f"there are {_inventory(facts)}",
        ) from error
    matching = [link for link in facts.links if compiled.fullmatch(link.name)]
    usable = [link for link in matching if link.addresses]
    if not usable:
        raise KernelError(
            f"no interface with an IPv4 address is called {pattern}",
            hint=f"there are {_inventory(facts)}",
        )
    # An interface that is up first, then by index: the same answer at every look.
    usable.sort(key=lambda link: (not link.up, link.index))
    return _uplink(facts, usable[0], None)


def _uplink(facts: HostFacts, link: Link, source: Address | None) -> Uplink:
    """Return ``link`` as the uplink, with ``source`` as node address if it is the link's."""
    own = next((each for each in link.addresses if each.ip == source), None)
    if own is None:
        own = next((each for each in link.addresses if not each.ip.is_link_local), None)
    if own is None or own.ip.is_loopback:
        raise KernelError(
            f"interface {link.name} has no IPv4 address that peers could use",
            hint="give it one, or name another uplink in agent.toml",
        )
    return Uplink(
        index=link.index,
        name=link.name,
        mtu=link.mtu,
        node_address=own.ip,
        on_link=_on_link(facts, link, own),
    )


def _on_link(facts: HostFacts, link: Link, own: Interface) -> Network:
    """Return the range that is reachable without a gateway.

    The address's own prefix says it; where that is a /32 (common in clouds), the widest
    link-scope route of the interface does.
    """
    if not is_host(own.network):
        return own.network
    ranges = [
        route.destination
        for route in facts.foreign_routes
        if route.link == link.name
        and route.gateway is None
        and route.scope == _SCOPE_LINK
        and route.destination.prefixlen > 0
        and own.ip in route.destination
    ]
    return min(ranges, key=lambda each: each.prefixlen, default=own.network)


def _inventory(facts: HostFacts) -> str:
    """List the interfaces with an address, for a hint; at most eight."""
    found = [
        f"{link.name} ({', '.join(str(each) for each in link.addresses)})"
        for link in facts.links
        if link.addresses and link.name != "lo"
    ]
    shown = ", ".join(found[:8])
    return f"{shown} and {len(found) - 8} more" if len(found) > 8 else shown or "none"  # noqa: PLR2004
