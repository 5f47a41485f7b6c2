"""Findings that keep dockerd from starting, or from using the written keys."""

from collections.abc import Mapping
from ipaddress import IPv4Network

import pytest

from agent.docker.daemonjson.conflicts import (
    Finding,
    doubled_keys,
    file_conflicts,
    flag_conflicts,
    foreign_keys,
)
from agent.docker.daemonjson.desired import BIP, MTU, NETWORK_MTU, POOLS, desired_docker, keys_for
from agent.docker.daemonjson.document import parse
from agent.docker.daemonjson.file_plan import fixable
from agent.docker.daemonjson.flags import Flags, for_validation, parse_flags
from agent.model import Severity

pytestmark = pytest.mark.unit

DESIRED = desired_docker(IPv4Network("10.64.0.0/16"), 1450)
EMPTY = parse("")


def by_name(findings: tuple[Finding, ...]) -> Mapping[str, Finding]:
    return {finding.condition.name: finding for finding in findings}


def seen(*argv: str) -> dict[str, Flags]:
    return {"the unit": parse_flags(("dockerd", *argv))}


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        (("--bip=1.2.3.4/24",), (("bip", "1.2.3.4/24"),)),
        (("--bip", "1.2.3.4/24", "-D"), (("bip", "1.2.3.4/24"), ("debug", "true"))),
        (("-Dl", "debug"), (("debug", "true"),)),
        (("--pidfile", "--bip=1.2.3.4/24"), (("pidfile", "--bip=1.2.3.4/24"),)),
        (("--debug", "yes", "--no-such-flag"), (("debug", "true"),)),
        (("-b", "br0"), (("bridge", "br0"),)),
        (("-bbr0",), (("bridge", "br0"),)),
        (
            ("-H", "fd://", "--containerd=/run/x"),
            (("hosts", "fd://"), ("containerd", "/run/x")),
        ),
        (("-H=fd://", "--host", "tcp://x"), (("hosts", "fd://"), ("hosts", "tcp://x"))),
        (("--iptables=false", "--live-restore"), (("iptables", "false"), ("live-restore", "true"))),
        (("--bip",), ()),
    ],
)
def test_flags(argv: tuple[str, ...], values: tuple[tuple[str, str], ...]) -> None:
    assert parse_flags(("/usr/bin/dockerd", *argv)).values == values


def test_promise_11_no_flag_of_a_process_can_take_what_follows_it() -> None:
    argv = ("dockerd", "-H", "fd://", "--pidfile", "/x", "-D", "--log-opt", "a=b", "--foo=x", "-p")
    assert for_validation(parse_flags(argv)) == ("--host=fd://", "--debug=true", "--log-opt=a=b")
    assert for_validation(parse_flags(("dockerd", "--config-file=/x", "--label"))) == ()


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        (("--bip=172.29.0.1/16",), BIP),
        (("--default-address-pool", "base=172.80.0.0/16,size=24"), POOLS),
    ],
)
def test_a_flag_that_says_something_else_blocks(
    argv: tuple[str, ...], path: tuple[str, ...]
) -> None:
    finding = by_name(flag_conflicts(DESIRED, seen(*argv), EMPTY))["docker-flag-conflict"]
    assert finding.blocks
    assert finding.keys == (path,)
    assert finding.condition.severity is Severity.ERROR
    assert "the unit" in finding.condition.cause


@pytest.mark.parametrize(
    ("argv", "path"),
    [
        (("--bip=10.64.0.1/17",), BIP),
        (("--default-address-pool=base=10.64.128.0/17,size=24",), POOLS),
        (("--mtu=1450",), MTU),
        (("--mtu=9000",), MTU),
        (("--default-network-opt=bridge=x=y",), NETWORK_MTU),
    ],
)
def test_a_key_that_is_a_flag_is_never_written(
    argv: tuple[str, ...], path: tuple[str, ...]
) -> None:
    """Both together stop dockerd, even when they say the same (20.10 to 28)."""
    finding = by_name(flag_conflicts(DESIRED, seen(*argv), EMPTY))["docker-flag-conflict"]
    assert finding.keys == (path,)
    assert not finding.blocks


def test_hosts_in_the_file_and_as_a_flag() -> None:
    document = parse('{"hosts": ["unix:///run/docker.sock"]}')
    assert by_name(flag_conflicts(DESIRED, seen("-H", "fd://"), document))[
        "docker-hosts-conflict"
    ].blocks
    assert flag_conflicts(DESIRED, seen("-H", "fd://"), EMPTY) == ()
    assert flag_conflicts(DESIRED, seen(), document) == ()


@pytest.mark.parametrize(
    ("text", "name", "blocks"),
    [
        ('{"bridge": "br0"}', "docker-bridge-set", True),
        ('{"bridge": "none"}', "docker-bridge-set", True),
        ('{"bridge": ""}', None, False),
        ('{"fixed-cidr": "172.17.0.0/24"}', "docker-fixed-cidr-outside", True),
        ('{"fixed-cidr": "10.64.0.0/16"}', "docker-fixed-cidr-outside", True),
        ('{"fixed-cidr": "rubbish"}', "docker-fixed-cidr-outside", True),
        ('{"fixed-cidr": "10.64.4.0/24"}', None, False),
        ('{"default-gateway": "172.17.0.254"}', "docker-default-gateway-outside", True),
        ('{"default-gateway": "10.64.0.9"}', None, False),
        ('{"iptables": false}', "docker-iptables-off", False),
        ('{"iptables": true}', None, False),
    ],
)
def test_keys_of_the_file(text: str, name: str | None, blocks: bool) -> None:
    found = by_name(file_conflicts(DESIRED, parse(text), "26.1"))
    assert set(found) == ({name} if name else set())
    if name:
        assert found[name].blocks is blocks
        assert found[name].condition.hint


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("-b", "br0"), "docker-bridge-set"),
        (("--fixed-cidr=172.17.0.0/24",), "docker-fixed-cidr-outside"),
        (("--default-gateway=172.17.0.254",), "docker-default-gateway-outside"),
        (("--iptables=0",), "docker-iptables-off"),
        (("--iptables=false",), "docker-iptables-off"),
    ],
)
def test_the_same_as_flags(argv: tuple[str, ...], name: str) -> None:
    assert name in by_name(flag_conflicts(DESIRED, seen(*argv), EMPTY))


@pytest.mark.parametrize(
    ("argv", "text", "subject"),
    [
        (("--log-level=debug",), '{"log-level": "info"}', "log-level"),
        (("--bip", "10.64.0.1/17"), '{"bip": "10.64.0.1/17"}', "bip"),
        (("-D",), '{"debug": true}', "debug"),
        (("-l", "info"), '{"log-level": "info"}', "log-level"),
        (("--label", "a=b"), '{"labels": ["c=d"]}', "labels"),
        (("--containerd=/run/x",), '{"containerd": "/run/x"}', "containerd"),
        (
            ("--default-network-opt=bridge=x=y",),
            '{"default-network-opts": {}}',
            "default-network-opts",
        ),
        (("--containerd=/run/x", "-H", "fd://"), '{"debug": true}', None),
        (("-H", "fd://"), '{"hosts": []}', None),
        (("--dns", "--debug"), '{"debug": true}', None),
    ],
)
def test_a_key_that_is_a_flag_as_well_is_found_before_dockerd_finds_it(
    argv: tuple[str, ...], text: str, subject: str | None
) -> None:
    found = doubled_keys(seen(*argv), parse(text))
    assert [each.condition.subject for each in found] == ([subject] if subject else [])
    assert all(each.blocks and each.condition.name == "docker-flag-conflict" for each in found)
    assert all("the unit" in each.condition.cause for each in found)


def test_promise_7_keys_the_operator_set_are_theirs() -> None:
    values = keys_for(DESIRED, "26.1")
    document = parse('{"bip": "1.2.3.4/24", "mtu": 9000, "default-address-pools": null}')
    found = {f.keys[0]: f for f in foreign_keys(document, None, values, replace=False)}
    assert set(found) == {BIP, MTU}
    assert found[BIP].blocks
    assert not found[MTU].blocks
    assert foreign_keys(document, None, values, replace=True) == ()
    same = parse('{"bip": "10.64.0.1/17", "mtu": 1450}')
    assert foreign_keys(same, None, values, replace=False) == ()


def test_a_restart_is_only_for_what_it_would_mend() -> None:
    differences = {BIP: "a", POOLS: "b", MTU: "c"}
    document = parse('{"bip": "10.64.0.1/17", "mtu": 9000}')
    assert set(fixable(DESIRED, differences, document, {})) == {BIP}
    assert set(fixable(DESIRED, differences, EMPTY, seen("--mtu=1450"))) == {MTU}
    flag = seen("--bip=172.29.0.1/16")
    assert BIP not in fixable(DESIRED, differences, document, flag)


@pytest.mark.parametrize(
    ("version", "found"),
    [("20.10.24+dfsg1", {"docker-key-unknown"}), ("26.1.5", set()), ("", set())],
)
def test_a_key_that_an_engine_without_a_check_does_not_know(version: str, found: set[str]) -> None:
    document = parse('{"proxies": {}, "log-opts": {"max-size": "1m"}}')
    findings = by_name(file_conflicts(DESIRED, document, version))
    assert set(findings) == found
    assert all(finding.blocks for finding in findings.values())
    assert all(finding.condition.subject == "proxies" for finding in findings.values())
