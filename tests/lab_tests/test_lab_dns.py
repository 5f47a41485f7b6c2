"""The hosts' name server on real parts, asked by the C library's resolver on a host."""

import time
from collections.abc import Iterator

import pytest
from hostmesh_lab import cli
from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions

pytestmark = pytest.mark.engine
NAME = "api.example"
NO_NAME, TRY_AGAIN = "-2", "-3"
"""EAI_NONAME and EAI_AGAIN."""
_RESOLVE = """\
import socket, sys
try:
    found = socket.getaddrinfo(sys.argv[1], None, socket.AF_INET, socket.SOCK_STREAM)
    print(*sorted(each[4][0] for each in found))
except socket.gaierror as error:
    print(error.errno)"""


@pytest.fixture(scope="module")
def module_lab() -> Iterator[Lab]:
    bare = HostOptions(agent=False, docker=False)
    with Lab.up(LabOptions("labdns", hosts=1, host=bare)) as lab:
        yield lab


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """The lab, whose name server answers as at first before and after a test."""
    yield module_lab
    module_lab.dns.reset()


def resolve(host: Host, name: str, options: str = "") -> str:
    """Return what getaddrinfo finds, as one line, or its error's number."""
    argv = ["/usr/bin/python3", "-I", "-c", _RESOLVE, name]
    return host.run(argv, env={"RES_OPTIONS": options}).stdout.strip()


def test_a_hosts_resolver_asks_the_labs_name_server(lab: Lab) -> None:
    host = lab.hosts["host1"]
    assert host.read_file("/etc/resolv.conf") == f"nameserver {lab.dns.address}\n"
    assert resolve(host, "world.example") == "203.0.113.7"
    assert "203.0.113.7" in host.run(["getent", "hosts", "world.example"]).stdout
    assert resolve(host, NAME) == NO_NAME
    lab.dns.answer(NAME, "198.51.100.7", "198.51.100.8")
    assert resolve(host, NAME) == "198.51.100.7 198.51.100.8"
    asked = lab.dns.queries(NAME)
    assert [(each.client, each.rcode) for each in asked] == [
        (host.address, "NXDOMAIN"),
        (host.address, "NOERROR"),
    ]


def test_names_fail_as_they_are_told_and_a_resolver_can_tell_how(lab: Lab) -> None:
    host, quick = lab.hosts["host1"], "timeout:1 attempts:1"
    lab.dns.answer(NAME, "198.51.100.7")
    lab.dns.fail("SERVFAIL", NAME)
    assert resolve(host, NAME, quick) == TRY_AGAIN
    assert resolve(host, "world.example") == "203.0.113.7"
    lab.dns.fail("NXDOMAIN")
    assert resolve(host, "world.example") == NO_NAME
    lab.dns.fail("SILENT")
    assert resolve(host, "world.example", quick) == TRY_AGAIN
    with pytest.raises(LabError, match="no way to fail is called BROKEN"):
        lab.dns.fail("BROKEN")


def test_a_large_answer_is_cut_off_over_udp_and_asked_again_over_tcp(lab: Lab) -> None:
    host = lab.hosts["host1"]
    addresses = lab.dns.large(NAME, 40)
    assert resolve(host, NAME).split() == sorted(addresses)
    udp, tcp = lab.dns.queries(NAME)[-2:]
    assert (udp.protocol, udp.truncated, tcp.protocol, tcp.truncated) == ("udp", True, "tcp", False)
    assert tcp.size > 512 > udp.size
    # A resolver that offers more takes the same answer in one datagram (EDNS0).
    assert resolve(host, NAME, "edns0").split() == sorted(addresses)
    last = lab.dns.queries(NAME)[-1]
    assert (last.protocol, last.truncated) == ("udp", False)


def test_a_stopped_server_refuses_at_once_and_a_frozen_one_keeps_clients_waiting(lab: Lab) -> None:
    host = lab.hosts["host1"]
    lab.dns.stop()
    assert resolve(host, "world.example", "timeout:20 attempts:1") == TRY_AGAIN
    lab.dns.start()
    assert resolve(host, "world.example") == "203.0.113.7"
    lab.dns.freeze()
    began = time.monotonic()
    assert resolve(host, "world.example", "timeout:1 attempts:1") == TRY_AGAIN
    assert time.monotonic() - began >= 1
    lab.dns.thaw()
    assert resolve(host, "world.example") == "203.0.113.7"


def test_its_records_outlive_a_power_cut(lab: Lab) -> None:
    lab.dns.answer(NAME, "198.51.100.7")
    lab.dns.kill()
    lab.dns.boot()
    assert resolve(lab.hosts["host1"], NAME) == "198.51.100.7"
    assert Lab.open(lab.name).dns.zone() == lab.dns.zone()


def test_the_command_line_does_the_same(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    def dns(*words: str) -> int:
        return cli.main(["dns", "--name", lab.name, *words])

    assert dns("answer", NAME, "198.51.100.9", "TXT hello") == 0
    assert resolve(lab.hosts["host1"], NAME) == "198.51.100.9"
    assert dns("queries", NAME) == 0
    assert f"udp A     {NAME}  NOERROR\n" in capsys.readouterr().out
    assert dns("large", NAME, "60") == 0
    assert len(lab.dns.zone().records[NAME]) == 60
    assert dns("fail", "NXDOMAIN") == 0
    assert resolve(lab.hosts["host1"], NAME) == NO_NAME
    for wrong in (("fail",), ("large", NAME, "many"), ("answer", NAME, "198.51")):
        assert dns(*wrong) == 1
    said = capsys.readouterr().err
    assert "missing a required argument: 'how'" in said
    assert "'many' is no number of addresses" in said
    assert "'198.51' is no record" in said
