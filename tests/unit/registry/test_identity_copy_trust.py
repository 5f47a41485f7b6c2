"""A host's identity, its copy on disk, and when it does not trust etcd."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.errors import StateError
from agent.main import main
from agent.model import Access, BackendChoice, BackendData, HostId, Lease, MeshConfig, View
from agent.model.network import MeshNetwork, NetworkSlice
from agent.registry import trust
from agent.registry.copy import CopyFile
from agent.registry.own import identity
from agent.registry.own.identity import (
    APPLICATION_ID,
    host_id,
    known_host_id,
    own_host_id,
    read_boot_id,
    read_machine_id,
)
from agent.settings import AgentSettings, Settings

pytestmark = pytest.mark.unit

_MACHINE = "0123456789abcdef0123456789abcdef"


def _lease(number: int) -> Lease:
    return Lease(
        subnet=IPv4Network((0x0A400000 + (number << 16), 16)),
        node_address=IPv4Address("192.0.2.0") + number,
        backend="host-gw",
        host_id=HostId(f"{number:032x}"),
        host_name=f"host{number}",
        claimed_s=1.5,
        ttl_s=86_400,
        etcd_lease_id=number,
        create_revision=number,
        mod_revision=number,
    )


_VIEW = View(
    cluster_id=0xABC,
    revision=100,
    config=MeshConfig(
        access=Access.CLOSED,
        previous=(IPv4Network("10.32.0.0/12"),),
        cidr=IPv4Network("10.64.0.0/10"),
        subnet_len=16,
        subnet_min=IPv4Address("10.64.0.0"),
        subnet_max=IPv4Address("10.127.0.0"),
        level=2,
        owners=True,
        flannel=True,
        declared_networks=True,
        domain="mesh.example",
        mod_revision=2,
    ),
    leases=tuple(_lease(number) for number in range(1, 5)),
    memory={HostId(_MACHINE): IPv4Network("10.70.0.0/16")},
    reservations={IPv4Network("10.71.0.0/16"): HostId(_MACHINE)},
    networks={"shop": MeshNetwork(name="shop", hosts=("a*",), create_revision=3, mod_revision=4)},
    slices={
        (HostId(_MACHINE), "shop"): NetworkSlice(
            host_id=HostId(_MACHINE),
            network="shop",
            subnet=IPv4Network("10.65.1.0/24"),
            create_revision=5,
            mod_revision=6,
        )
    },
)


# --- identity -----------------------------------------------------------------------------


def test_the_host_id_is_a_stable_hash_and_not_the_machine_id() -> None:
    found = host_id(_MACHINE)
    assert found == "01367e658e0c4f7ea3a2610fc456b775"
    assert found != host_id(_MACHINE[::-1])


def _settings(folder: Path) -> Settings:
    return Settings(agent=AgentSettings(state_dir=folder))


def test_the_agent_prints_the_host_id_without_settings_and_without_root(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty.toml").touch()
    assert main(["--settings", str(tmp_path / "empty.toml"), "--host-id"]) == 0
    assert capsys.readouterr().out == f"{host_id(read_machine_id())}\n"


def test_the_id_in_the_state_directory_comes_before_machine_id(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The certificates in [etcd] are made for the id, so they are not needed to print it."""
    path = tmp_path / "agent.toml"
    path.write_text(f'[etcd]\nca_file = "/absent"\n[agent]\nstate_dir = "{tmp_path}/state"\n')
    (tmp_path / "state").mkdir()
    assert main(["--settings", str(path), "--host-id"]) == 0
    assert capsys.readouterr().out == f"{host_id(read_machine_id())}\n"
    (tmp_path / "state" / "host-id").write_text(_MACHINE + "\n")
    assert main(["--settings", str(path), "--host-id"]) == 0
    assert capsys.readouterr().out == f"{_MACHINE}\n"


@pytest.mark.parametrize("content", ["", "xyz\n", "0123456789ABCDEF" * 2, "é" * 32])
def test_a_damaged_host_id_is_an_error_and_never_machine_id(tmp_path: Path, content: str) -> None:
    (tmp_path / "host-id").write_text(content, encoding="utf-8")
    with pytest.raises(StateError, match="host-id does not hold a host id"):
        own_host_id(_settings(tmp_path))
    assert known_host_id(_settings(tmp_path)) is None


def test_one_function_says_the_id_of_this_host() -> None:
    """A caller that hashes machine-id would have another id than the agent after a token."""
    root = Path(identity.__file__).parents[2]
    users = [path for path in root.rglob("*.py") if "read_machine_id" in path.read_text()]
    assert users == [Path(identity.__file__)]


@pytest.mark.skipif(shutil.which("systemd-id128") is None, reason="needs systemd-id128")
def test_the_host_id_is_what_systemd_computes() -> None:
    command = ["systemd-id128", "machine-id", "--app-specific", APPLICATION_ID.hex]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert shown == host_id(read_machine_id())


@pytest.mark.parametrize("content", ["", "\n", "uninitialized\n", "xyz", "0" * 32, "é"])
def test_a_machine_id_that_is_none_is_refused_with_a_hint(tmp_path: Path, content: str) -> None:
    path = tmp_path / "machine-id"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(StateError) as refused:
        read_machine_id(path)
    assert "systemd-machine-id-setup" in refused.value.hint
    with pytest.raises(StateError):
        read_machine_id(tmp_path / "absent")


def test_machine_id_and_boot_id_are_read(tmp_path: Path) -> None:
    path = tmp_path / "machine-id"
    path.write_text(_MACHINE + "\n", encoding="ascii")
    assert read_machine_id(path) == _MACHINE
    assert len(read_boot_id()) == 32


# --- copy ---------------------------------------------------------------------------------


def test_the_copy_comes_back_as_it_was_saved_marked_cached(tmp_path: Path) -> None:
    file = CopyFile(tmp_path / "state" / "copy.json", wall_clock=lambda: 123.0)
    assert file.load() is None
    file.save(view=_VIEW, lease=_lease(1))
    found = file.load()
    assert found is not None
    assert (found.lease, found.saved_s) == (_lease(1), 123.0)
    assert found.view == replace(_VIEW, cached=True)
    file.save(view=replace(_VIEW, config=None), lease=None)
    found = file.load()
    assert found is not None
    assert (found.lease, found.view.config) == (None, None)
    assert [each.name for each in (tmp_path / "state").iterdir()] == ["copy.json"]
    file.forget()
    file.forget()
    assert file.load() is None


def test_promise_12_a_copy_has_the_fields_of_0_1_where_0_1_reads_all_of_them(
    tmp_path: Path,
) -> None:
    """0.1 takes a config or a lease with another field for damaged, so that is elsewhere."""
    path = tmp_path / "copy.json"
    assert _VIEW.config is not None
    data = BackendData.of({"VtepMAC": "52:54:00:12:34:56"})
    config = replace(
        _VIEW.config,
        level=2,
        backend_options=BackendData.of({"VNI": 2}),
        accepted=BackendChoice("wireguard"),
    )
    accepted = BackendChoice("vxlan", data)
    leases = (*_VIEW.leases, replace(_lease(9), backend_data=data, accepted=accepted))
    view = replace(_VIEW, config=config, leases=leases)
    CopyFile(path).save(view=view, lease=replace(_lease(1), backend_data=data, link="a", mtu=9000))
    body = json.loads(json.loads(path.read_text())["body"])
    for lease in (body["lease"], *body["view"]["leases"]):
        assert set(lease) <= {
            "backend",
            "claimed_s",
            "create_revision",
            "etcd_lease_id",
            "host_id",
            "host_name",
            "mod_revision",
            "node_address",
            "renewed_s",
            "subnet",
            "ttl_s",
        }
    assert set(body["view"]["config"]) <= {
        "access",
        "backend",
        "cidr",
        "mod_revision",
        "previous",
        "subnet_len",
        "subnet_max",
        "subnet_min",
    }
    found = CopyFile(path).load()
    assert found is not None
    assert (found.view, found.lease) == (
        replace(view, cached=True),
        replace(_lease(1), backend_data=data, link="a", mtu=9000),
    )
    body["view"]["config"]["newer"] = body["lease"]["newer"] = 1
    text = json.dumps(body)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps({"version": 1, "body": text, "sha256": checksum}))
    assert CopyFile(path).load() == found, "and what a newer version adds is passed over"


def test_a_copy_cut_off_anywhere_or_flipped_is_set_aside_and_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "copy.json"
    file = CopyFile(path)
    file.save(view=_VIEW, lease=_lease(1))
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in range(0, len(whole), 97)]
    damaged += [
        whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :] for at in range(0, len(whole), 101)
    ]
    damaged += [b"[" * 100_000, b"null", b'{"version":99}', b"\xff"]
    for content in damaged:
        path.write_bytes(content)
        assert file.load() is None
        assert "damaged" in file.problem
        assert not path.exists()
        assert (tmp_path / "copy.json.damaged").read_bytes() == content
    path.write_bytes(whole)
    assert file.load() is not None
    assert file.problem == ""


def test_a_copy_that_cannot_be_read_is_set_aside_and_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in its place, a disk that fails: the agent starts without it."""
    path = tmp_path / "copy.json"
    file = CopyFile(path)
    path.mkdir()
    assert file.load() is None
    assert "Is a directory" in file.problem
    assert (tmp_path / "copy.json.damaged").is_dir()
    (tmp_path / "copy.json.damaged").rmdir()
    file.save(view=_VIEW, lease=_lease(1))

    def failing(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", failing)
        assert file.load() is None
        patched.setattr(Path, "replace", failing)
        assert file.load() is None
        assert "cannot be moved" in file.problem
        with pytest.raises(StateError, match="Input/output error"):
            file.peek()
    assert (tmp_path / "copy.json.damaged").is_file()
    file.save(view=_VIEW, lease=_lease(1))
    assert file.load() is not None


def test_a_copy_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "copy.json"
    file = CopyFile(path)
    file.save(view=_VIEW, lease=_lease(1))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StateError, match="No space left"):
        file.save(view=_VIEW, lease=None)
    monkeypatch.undo()
    found = file.load()
    assert found is not None
    assert found.lease == _lease(1)
    assert [each.name for each in tmp_path.iterdir()] == ["copy.json"]


def test_the_copy_keeps_what_backends_publish(tmp_path: Path) -> None:
    file = CopyFile(tmp_path / "copy.json")
    lease = replace(_lease(1), backend_data=BackendData.of({"VNI": 1}))
    file.save(view=replace(_VIEW, leases=(lease,)), lease=lease)
    found = file.load()
    assert found is not None
    assert found.lease == lease
    assert tuple(found.view.leases) == (lease,)


def test_a_checksum_that_fits_a_body_of_nonsense_is_not_fatal_either(tmp_path: Path) -> None:
    import hashlib  # noqa: PLC0415  # only here

    path = tmp_path / "copy.json"
    for body in ("null", "{}", '{"view":{"leases":[{}]},"lease":null,"saved":"x"}'):
        digest = hashlib.sha256(body.encode()).hexdigest()
        path.write_text(json.dumps({"version": 1, "sha256": digest, "body": body}))
        assert CopyFile(path).load() is None


def test_no_name_can_pose_as_the_place_of_the_leases(tmp_path: Path) -> None:
    odd = replace(_lease(1), host_name='x"leases":[]\\"leases":[]')
    file = CopyFile(tmp_path / "copy.json")
    file.save(view=replace(_VIEW, leases=(odd, _lease(2))), lease=odd)
    copy = file.load()
    assert copy is not None
    assert copy.lease == odd
    assert copy.view.leases == (odd, _lease(2))


# --- trust --------------------------------------------------------------------------------


def test_promise_4_the_first_view_and_the_usual_changes_are_news() -> None:
    assert not trust.judge(None, _VIEW).alarm
    newer = replace(_VIEW, revision=101)
    for leases in (_VIEW.leases, _VIEW.leases[1:], (*_VIEW.leases, _lease(9)), _VIEW.leases[2:]):
        assert not trust.judge(_VIEW, replace(newer, leases=leases)).alarm
    renewed = tuple(
        replace(each, node_address=IPv4Address("192.0.2.99"), mod_revision=101)
        for each in _VIEW.leases
    )
    assert not trust.judge(_VIEW, replace(newer, leases=renewed)).alarm


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"cluster_id": 0xDEF}, trust.VerdictKind.OTHER_CLUSTER),
        ({"cluster_id": 0xDEF, "leases": ()}, trust.VerdictKind.OTHER_CLUSTER),
        ({"revision": 99}, trust.VerdictKind.REVISION_WENT_BACK),
        ({"leases": ()}, trust.VerdictKind.LEASES_GONE),
        (
            {"leases": tuple(replace(each, etcd_lease_id=1) for each in _VIEW.leases[3:])},
            trust.VerdictKind.LEASES_GONE,
        ),
        (
            {"leases": tuple(replace(each, host_id=HostId("f" * 32)) for each in _VIEW.leases)},
            trust.VerdictKind.LEASES_GONE,
        ),
    ],
)
def test_promise_4_another_etcd_is_an_alarm_with_a_reason(
    changes: dict[str, object], kind: trust.VerdictKind
) -> None:
    verdict = trust.judge(_VIEW, replace(_VIEW, **changes))  # type: ignore[arg-type]
    assert (verdict.alarm, verdict.kind) == (True, kind)
    assert verdict.reason


def test_a_lease_that_is_there_as_it_was_granted_speaks_against_a_wiped_prefix() -> None:
    """Three of four hosts were replaced while this one was off."""
    assert _VIEW.leases[0].etcd_lease_id
    view = replace(_VIEW, revision=101, leases=(_VIEW.leases[0], _lease(7), _lease(8)))
    assert not trust.judge(_VIEW, view).alarm
    assert trust.many_gone(_VIEW, view)
    granted_again = replace(_VIEW.leases[0], etcd_lease_id=77)
    assert trust.judge(_VIEW, replace(view, leases=(granted_again, _lease(7)))).alarm


def test_flannel_hosts_that_the_config_refuses_are_not_gone() -> None:
    assert _VIEW.config is not None
    flannel = tuple(replace(each, host_id=None) for each in _VIEW.leases[:3])
    before = replace(_VIEW, leases=(*flannel, _VIEW.leases[3]))
    after = replace(_VIEW, revision=101, leases=_VIEW.leases[3:])
    assert trust.many_gone(before, after)
    refused = replace(after, config=replace(_VIEW.config, flannel=False))
    assert not trust.many_gone(before, refused)


def test_hosts_that_moved_to_another_cidr_are_not_gone() -> None:
    """A host that was away for the whole move; promise 4 holds for who did not come along."""
    assert _VIEW.config is not None
    config = replace(_VIEW.config, cidr=IPv4Network("10.32.0.0/12"))
    moved = [
        replace(each, subnet=IPv4Network(f"10.3{number}.0.0/16"))
        for number, each in enumerate(_VIEW.leases, 3)
    ]
    there = replace(_VIEW, revision=101, config=config, leases=tuple(moved))
    assert not trust.judge(_VIEW, there).alarm
    assert trust.judge(_VIEW, replace(there, leases=tuple(moved[:1]))).alarm
    assert trust.judge(_VIEW, replace(there, config=_VIEW.config)).alarm, "it did not move"
    outside = [replace(each, subnet=IPv4Network("10.9.0.0/16")) for each in moved]
    assert trust.judge(_VIEW, replace(there, leases=tuple(outside))).alarm


def test_one_host_that_leaves_a_mesh_of_two_or_one_is_no_alarm() -> None:
    for count in (1, 2):
        pinned = replace(_VIEW, leases=_VIEW.leases[:count])
        assert not trust.judge(pinned, replace(pinned, leases=pinned.leases[1:])).alarm


def test_promise_4_agreement_is_when_most_holders_are_back_and_there_is_a_config() -> None:
    other, own = replace(_VIEW, cluster_id=1, revision=1), HostId(f"{1:032x}")
    assert trust.agrees(_VIEW, other, own)
    assert trust.agrees(_VIEW, replace(other, leases=_VIEW.leases[2:]), own)
    assert not trust.agrees(_VIEW, replace(other, leases=_VIEW.leases[3:]), own)
    assert not trust.agrees(_VIEW, replace(other, leases=_VIEW.leases[:2]), own), "own and one"
    assert not trust.agrees(_VIEW, replace(other, config=None), own)
