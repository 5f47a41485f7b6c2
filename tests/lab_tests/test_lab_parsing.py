"""The lab's parsers: apt sources, packets, its own records."""

import io
import json
import os
import struct
import tarfile
import tomllib
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hostmesh_lab import cgroups, paths, state, toml
from hostmesh_lab.errors import LabError, WaitTimeout
from hostmesh_lab.filesystems import apt_sources, lab_image
from hostmesh_lab.machine_state import MachineState
from hostmesh_lab.machines.capture import ECHO_REQUEST, ECHO_REQUEST6, PcapReader, parse_frame
from hostmesh_lab.machines.config import Config, Restart, Service
from hostmesh_lab.processes import Proc, machine_boot_id
from hostmesh_lab.underlay.topology import ONE_LAN, Nic
from hostmesh_lab.wait import wait_until

pytestmark = pytest.mark.unit

DEB822 = """\
Types: deb
# a comment between fields
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
"""


class TestMirror:
    def test_deb822_stanzas_give_one_source_per_suite(self) -> None:
        found = list(apt_sources.parse_deb822(DEB822))
        assert [source.suite for source in found] == ["trixie", "trixie-updates", "trixie-security"]
        assert found[0].components == ("main", "contrib")

    def test_one_line_entries_may_have_options_and_comments(self) -> None:
        text = (
            "# deb http://no.example/debian trixie main\n"
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main # here\n"
            "deb-src http://mirror.example/debian bookworm main\n"
        )
        assert list(apt_sources.parse_one_line(text)) == [
            apt_sources.Source("http://mirror.example/debian", "bookworm", ("main",))
        ]

    def test_a_vendors_or_the_security_archive_is_not_taken(self) -> None:
        sources = [
            apt_sources.Source("http://vendor.example/apt", "nodistro", ("main",)),
            apt_sources.Source("http://mirror.example/debian-security", "stable", ("main",)),
            apt_sources.Source("http://mirror.example/debian/", "bookworm", ("main",)),
        ]
        assert apt_sources.choose_mirror(sources) == "http://mirror.example/debian"

    def test_without_a_debian_source_the_error_says_where_was_looked(self) -> None:
        with pytest.raises(LabError) as caught:
            apt_sources.choose_mirror([])
        assert "/etc/apt/sources.list" in caught.value.line()

    def test_a_list_of_mirrors_is_followed(self, tmp_path: Path) -> None:
        listed = tmp_path / "mirrors.list"
        listed.write_text("# best first\nhttp://one.example/debian priority:1\n")
        (tmp_path / "sources.list").write_text(f"deb mirror+file://{listed} trixie main\n")
        assert apt_sources.mirror(tmp_path) == "http://one.example/debian"


def ethernet(payload: bytes, kind: int = 0x0800) -> bytes:
    return bytes.fromhex("020000000002020000000001") + struct.pack("!H", kind) + payload


def ipv4(protocol: int, payload: bytes, ttl: int = 63) -> bytes:
    source, target = IPv4Address("10.64.0.2").packed, IPv4Address("10.65.0.2").packed
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0)
        + source
        + target
        + payload
    )


ECHO = ethernet(ipv4(1, struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, 7, 3)))


class TestPackets:
    def test_an_echo_request_is_read_whole(self) -> None:
        packet = parse_frame(ECHO, 1.5)
        assert packet is not None
        assert (packet.src, packet.dst, packet.ttl) == (
            IPv4Address("10.64.0.2"),
            IPv4Address("10.65.0.2"),
            63,
        )
        assert (packet.src_mac, packet.dst_mac) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
        assert (packet.icmp_type, packet.icmp_id, packet.icmp_seq) == (ECHO_REQUEST, 7, 3)

    def test_ports_of_tcp_are_read(self) -> None:
        packet = parse_frame(ethernet(ipv4(6, struct.pack("!HH", 1234, 80) + bytes(16))), 0)
        assert packet is not None
        assert (packet.protocol, packet.ports, packet.icmp_type) == ("tcp", (1234, 80), None)

    def test_an_echo_request_of_ipv6_is_read_whole(self) -> None:
        source, target = IPv6Address("fd00:50::b"), IPv6Address("fd00:50::c")
        header = struct.pack("!IHBB", 6 << 28, 8, 58, 64) + source.packed + target.packed
        echo = struct.pack("!BBHHH", ECHO_REQUEST6, 0, 0, 7, 3)
        packet = parse_frame(ethernet(header + echo, kind=0x86DD), 0)
        assert packet is not None
        assert (packet.src, packet.dst, packet.ttl) == (source, target, 64)
        assert (packet.protocol, packet.icmp_type, packet.icmp_seq) == ("icmp6", ECHO_REQUEST6, 3)

    @pytest.mark.parametrize("frame", [b"", ECHO[:20], ethernet(bytes(39), kind=0x86DD)])
    def test_what_is_no_ip_packet_is_left_out(self, frame: bytes) -> None:
        assert parse_frame(frame, 0) is None

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_stream_may_come_in_pieces_of_one_byte(self, order: str) -> None:
        head = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
        record = struct.pack(order + "IIII", 10, 500_000, len(ECHO), len(ECHO)) + ECHO
        reader, found = PcapReader(), []
        for byte in head + record + record:
            found += reader.feed(bytes([byte]))
        assert [packet.time for packet in found] == [10.5, 10.5]


class TestRecords:
    def test_a_pid_that_now_is_another_process_is_not_alive(self) -> None:
        mine = Proc.of(os.getpid())
        assert mine.alive()
        assert not Proc(mine.pid, mine.start + 1).alive()

    def test_a_record_that_is_garbage_is_no_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paths, "state_root", lambda: tmp_path)
        (tmp_path / "lab").mkdir()
        (tmp_path / "lab/lab.json").write_text('{"name": "lab"')
        assert state.load("lab") is None

    def test_a_record_of_another_clone_may_lack_what_this_one_writes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paths, "state_root", lambda: tmp_path)
        record = state.Record("lab", "trixie", [], "", 1, {}, "boot", 1, 2, 3, 4)
        record.save()
        path = tmp_path / "lab/lab.json"
        raw = json.loads(path.read_text())
        del raw["topology"]
        path.write_text(json.dumps({**raw, "unknown": 1}))
        assert state.load("lab") == record

    def test_a_command_without_a_name_means_the_only_lab_that_somebody_left_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paths, "state_root", lambda: tmp_path)
        monkeypatch.setattr(
            state, "known_names", lambda: [each.name for each in tmp_path.iterdir()]
        )
        mine = Proc.of(os.getpid())

        def left_up(name: str, *, owner: int = 0, holder: Proc = mine) -> None:
            state.Record(
                name, "trixie", [], "", 1, {}, machine_boot_id(), holder.pid, holder.start, owner, 0
            ).save()

        assert state.default_name() == "lab"
        left_up("demo")
        left_up("ofatest", owner=1)
        left_up("dead", holder=Proc(mine.pid, mine.start + 1))
        assert state.default_name() == "demo"
        left_up("other")
        assert state.default_name() == "lab"

    def test_a_lab_of_another_pid_namespace_is_not_taken_for_dead(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A bench in a namespace of its own must not clear the labs beside it."""
        monkeypatch.setattr(cgroups, "mount_point", lambda: tmp_path)
        events = cgroups.lab_group("lab") / "cgroup.events"
        events.parent.mkdir(parents=True)
        boot = machine_boot_id()
        record = state.Record("lab", "trixie", [], "", 1, {}, boot, 1, 2, 3, 4)
        assert not record.alive()
        assert record.orphaned()
        elsewhere = replace(record, pid_namespace="pid:[1]")
        events.write_text("populated 1\nfrozen 0\n")
        assert elsewhere.alive()
        assert not elsewhere.orphaned()
        events.write_text("populated 0\nfrozen 0\n")
        assert not elsewhere.alive()

    def test_a_machines_configuration_survives_its_file(self, tmp_path: Path) -> None:
        service = Service("docker", ["dockerd"], {"kind": "ping"}, restart=Restart(2, 2, 3))
        ports = ONE_LAN.ports("host1", (Nic("lan", 11),))
        config = Config(
            "lab", "host1", "host", "trixie", "192.168.50.11", ["/layer"], [service], ports
        )
        (tmp_path / "machine.json").write_text(json.dumps(config, default=vars))
        assert Config.load(tmp_path / "machine.json") == config

    @pytest.mark.parametrize("name", ["", "Lab", "a/b", "..", "a" * 21, "1st"])
    def test_names_that_would_be_trouble_in_paths_are_refused(self, name: str) -> None:
        with pytest.raises(LabError):
            paths.checked_name(name)

    def test_what_changed_on_the_machine_is_told_in_words(self) -> None:
        before, after = MachineState(frozenset({"a", "b"})), MachineState(frozenset({"b", "c"}))
        assert before.differences(after) == ["gone: a", "new: c"]

    def test_a_setting_that_changed_is_told_and_one_of_a_new_module_is_not(self) -> None:
        before = MachineState(frozenset({"sysctl net/a = 0"}))
        after = MachineState(frozenset({"sysctl net/a = 1", "sysctl net/bridge/b = 1"}))
        assert before.differences(after) == ["gone: sysctl net/a = 0", "new: sysctl net/a = 1"]


def test_settings_are_written_as_toml_that_reads_back() -> None:
    tables: dict[str, dict[str, object]] = {
        "etcd": {"endpoints": ["http://a:2379"], "deep": {"x": 1}},
        "x": {"on": True, "text": 'a"b\\c'},
    }
    assert tomllib.loads(toml.dumps(tables)) == tables


def test_waiting_in_vain_says_what_was_seen_last() -> None:
    with pytest.raises(WaitTimeout, match=r"not within 0 s: the moon \(last seen: 0\)"):
        wait_until(lambda: 0, 0, "the moon")


def test_the_containers_image_names_no_file_that_it_lacks(tmp_path: Path) -> None:
    busybox = tmp_path / "bin/busybox"
    busybox.parent.mkdir()
    busybox.write_text("#!/bin/sh\necho sh\necho httpd\n")
    busybox.chmod(0o755)
    with tarfile.open(fileobj=io.BytesIO(lab_image.archive(tmp_path))) as tar:
        reader = tar.extractfile("manifest.json")
        assert reader is not None
        manifest = json.load(reader)[0]
        assert {manifest["Config"], *manifest["Layers"]} <= set(tar.getnames())
