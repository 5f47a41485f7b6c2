"""Which addresses a host needs beside the mesh: read from routes and files."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from agent.kernel.needed_addresses import needed_addresses
from agent.model import HostFacts, Link, Need, Needed, Route

pytestmark = pytest.mark.unit


def facts() -> HostFacts:
    link = Link(
        index=2, name="eth0", kind="", up=True, mtu=1500, mac="",
        addresses=(IPv4Interface("192.0.2.5/24"),),
    )  # fmt: skip
    default, other = IPv4Network("0.0.0.0/0"), IPv4Network("198.51.100.0/24")
    gateways = {default: "192.0.2.1", other: "192.0.2.2"}
    routes = tuple(Route(destination=to, gateway=IPv4Address(at)) for to, at in gateways.items())
    return HostFacts(links=(link,), foreign_routes=routes)


def test_etcd_gateways_and_the_resolvers_of_both_files_but_no_address_of_the_host(
    tmp_path: Path,
) -> None:
    for name, text in (
        ("etc/resolv.conf", "nameserver 127.0.0.53\nnameserver 192.0.2.5\nnameserver fd00::1\n#\n"),
        ("run/systemd/resolve/resolv.conf", "nameserver 10.0.0.53\nnameserver\nnameserver x\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    endpoints = frozenset({IPv4Address("203.0.113.9"), IPv4Address("192.0.2.5")})
    assert needed_addresses(facts(), endpoints, tmp_path) == (
        Needed(IPv4Address("203.0.113.9"), Need.ETCD),
        Needed(IPv4Address("192.0.2.1"), Need.GATEWAY),
        Needed(IPv4Address("10.0.0.53"), Need.RESOLVER),
    )


def test_promise_10_no_file_makes_the_list_long(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    lines = "".join(f"nameserver 10.{high}.0.1\n" for high in range(200)) * 100
    (tmp_path / "etc/resolv.conf").write_text(lines)
    assert len(needed_addresses(facts(), (), tmp_path)) == 16


def test_promise_8_no_kind_crowds_another_out(tmp_path: Path) -> None:
    """One name of etcd may have many addresses; gateway and resolvers are needed as well."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text("nameserver 10.0.0.53\nnameserver 10.0.0.54\n")
    endpoints = [IPv4Address("203.0.113.0") + number for number in range(40)]
    found = needed_addresses(facts(), endpoints, tmp_path)
    assert len(found) == 16
    assert [each.need for each in found[-3:]] == [Need.GATEWAY, Need.RESOLVER, Need.RESOLVER]
    assert [each.address for each in found[:13]] == endpoints[:13]
