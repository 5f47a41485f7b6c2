"""hostmesh-deploy before it touches a host: what it reads, judges, keeps and prints."""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.deploy import packages
from agent.deploy.checks import judge, propose_cidr
from agent.deploy.deployment import Look, completed
from agent.deploy.engine import Event, share
from agent.deploy.facts import HostFacts, read_facts
from agent.deploy.folder import DeployFolder, Host, Mesh
from agent.deploy.inventory import Change, endpoints, inventory
from agent.deploy.main import main
from agent.deploy.parser import as_members, parse_hosts
from agent.deploy.progress import Progress
from agent.errors import HostmeshError, Refused, UsageError

pytestmark = pytest.mark.unit

ANSIBLE = (2, 19)
GOOD = HostFacts(
    system="debian", release="13", codename="trixie", architecture="amd64", machine="a1",
    init="systemd", python=(3, 13), free_mb=9000, docker="26.1.5+dfsg1", source="192.0.2.11",
    addresses=("127.0.0.1", "192.0.2.11"), used=(IPv4Network("192.0.2.0/24"),),
)  # fmt: skip
HOST = Host("web1", "192.0.2.11", "root", member_address="192.0.2.11")
MESH = Mesh(hosts=(HOST,), own_etcd=True, cidr="10.64.0.0/10", backend="host-gw")


def causes(facts: dict[str, Any], ansible: tuple[int, int] = ANSIBLE) -> str:
    seen = {"web1": replace(GOOD, **facts)}
    found = judge(MESH, seen, ansible=ansible, endpoints=endpoints(MESH))
    assert all(each.cause and (each.hint or not each.stops) for each in found)
    return "; ".join(each.cause for each in found if each.stops)


def settings(*urls: str) -> dict[str, Any]:
    return {"settings": {"etcd": {"endpoints": list(urls)}}, "settings_of_ansible": True}


def test_a_good_host_has_no_problem() -> None:
    assert causes({}) == ""


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"uid": 1000}, "is not root"),
        ({"system": "ubuntu", "release": "24.04", "codename": "noble"}, "ubuntu 24.04 noble"),
        ({"codename": "bullseye", "release": "11"}, "debian 11 bullseye is not"),
        ({"init": "other"}, "systemd is not its init"),
        ({"free_mb": 120}, "120 MB are free"),
        ({"clock_off_s": -90.0}, "its clock is 90 s behind"),
        ({"docker": "stopped"}, "does not run"),
        ({"docker": "19.03.8"}, "Docker 19.03.8 is older than 20.10"),
        ({"listens": frozenset({22, 2379})}, "port 2379 of etcd is in use"),
        ({"used": (IPv4Network("10.70.0.0/16"),)}, "10.70.0.0/16 overlaps the mesh's 10.64.0.0/10"),
        ({"other_installation": "/opt/hostmesh"}, "install.sh installed Hostmesh"),
        (settings("https://10.9.9.9:2379"), "another mesh: its etcd is https://10.9.9.9:2379"),
        ({"settings": {"log": {"level": "debug"}}}, "another program or person wrote its"),
        ({"addresses": ("127.0.0.1",)}, "it has no address 192.0.2.11"),
        ({"etcd_cluster": "web1=https://192.0.2.77:2380"}, "its etcd belongs to another mesh"),
    ],
)
def test_what_prevents_a_deployment_is_named(facts: dict[str, Any], cause: str) -> None:
    assert cause in causes(facts)


def test_a_member_of_this_mesh_is_no_problem() -> None:
    own = settings("https://192.0.2.11:2379/")
    subnet = {"used": (IPv4Network("192.0.2.0/24"), IPv4Network("10.70.0.0/16"))}
    cluster = "web1=https://192.0.2.11:2380"
    etcd = {"listens": frozenset({2379, 2380}), "etcd_runs": True, "etcd_cluster": cluster}
    assert causes({**own, **subnet, **etcd}) == ""


def test_an_older_ansible_is_refused_for_a_newer_python() -> None:
    assert "ansible-core 2.14 of this machine cannot use" in causes({}, (2, 14))
    assert causes({"python": (3, 11)}, (2, 14)) == ""


def test_clones_of_one_machine_are_named() -> None:
    mesh = replace(MESH, hosts=(HOST, Host("web2", "192.0.2.12")))
    found = judge(mesh, {"web1": GOOD, "web2": GOOD}, ansible=ANSIBLE, endpoints=endpoints(mesh))
    assert [(each.host, each.cause) for each in found] == [
        ("web2", "it has the machine-id of web1: a clone")
    ]


def test_a_member_without_a_default_route_is_refused_and_not_left_out() -> None:
    asked = replace(MESH, hosts=as_members((HOST,), "web1"))
    assert completed(asked, {"web1": GOOD}) == MESH
    facts = {"web1": replace(GOOD, source="")}
    found = judge(completed(asked, facts), facts, ansible=ANSIBLE, endpoints=())
    assert [(each.cause, each.hint, each.stops) for each in found] == [
        (
            "it has no default route, whose address its etcd would use",
            "--with-etcd web1=ADDRESS, with the other members",
            True,
        )
    ]


def test_a_free_range_is_proposed() -> None:
    assert propose_cidr([GOOD]) == "10.64.0.0/10"
    taken = replace(GOOD, used=(IPv4Network("10.100.0.0/24"),))
    assert propose_cidr([GOOD, taken]) == "10.32.0.0/11"
    assert (
        propose_cidr([replace(GOOD, used=(IPv4Network("8.0.0.0/5"), IPv4Network("100.0.0.0/8")))])
        == ""
    )


def test_facts_are_read_and_made_harmless() -> None:
    toml = b'# Written by Ansible: changes here are lost.\n[etcd]\nendpoints = ["http://x:2379"]\n'
    text = (
        "uid 0\r\nsystem debian 13 trixie\r\npython 3.13\r\nfree_mb 77\r\nhostname \x1b[31mx\r\n"
        "address 192.0.2.11/24\r\naddress nonsense\r\nroute 10.9.0.0/16\r\nlistens 22\r\n"
        f"settings {base64.b64encode(toml).decode()}\r\nnow 1000\r\nnonsense\r\n"
    )
    facts = read_facts(text, 1002.5)
    assert (facts.codename, facts.python, facts.free_mb) == ("trixie", (3, 13), 77)
    assert "\x1b" not in facts.hostname
    assert facts.used == (IPv4Network("192.0.2.0/24"), IPv4Network("10.9.0.0/16"))
    assert facts.settings == {"etcd": {"endpoints": ["http://x:2379"]}}
    assert facts.settings_of_ansible
    assert facts.clock_off_s == -2.5
    assert not facts.needs_restart
    assert read_facts(text + "restart_pending 1\r\n", 0).needs_restart
    assert read_facts("settings %%%\nnow x\npython \n", 0) == HostFacts()


def test_the_packages_own_agent_toml_counts_as_none() -> None:
    """A run that was cut off after the package finds it."""
    text = base64.b64encode((share() / "deb/agent.toml").read_bytes()).decode()
    assert read_facts(f"settings {text}\n", 0).settings is None


def test_facts_sh_prints_what_is_read() -> None:
    script = share() / "ansible/scripts/facts.sh"
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False, timeout=60)
    facts = read_facts(done.stdout, 0)
    assert facts.system
    assert facts.architecture
    assert facts.free_mb > 0
    assert facts.clock_off_s > 1e9


def test_hosts_are_named_in_several_ways() -> None:
    hosts = parse_hosts(["root@web1", "db=admin@10.0.0.5:2222", "web3"])
    assert [(h.name, h.destination, h.port) for h in hosts] == [
        ("web1", "root@web1", None), ("db", "admin@10.0.0.5", 2222), ("web3", "web3", None),
    ]  # fmt: skip
    members = as_members(hosts, "web1,db=10.0.0.5")
    assert [host.member_address for host in members] == ["-", "10.0.0.5", ""]
    for wrong in ("root@", "-oProxyCommand=x", "operator", "a b", "all", "x=@y", "web1;id"):
        with pytest.raises(UsageError):
            parse_hosts([wrong])
    with pytest.raises(UsageError, match="named twice"):
        parse_hosts(["a=10.0.0.1", "a=10.0.0.2"])
    with pytest.raises(UsageError, match="none of --hosts"):
        as_members(hosts, "web9")


def test_the_package_of_a_hosts_release_is_chosen(tmp_path: Path) -> None:
    for name in (
        "hostmesh_0.1.1_trixie_amd64.deb", "hostmesh_0.2.0_trixie_amd64.deb",
        "hostmesh_0.10.0+deb12_amd64.deb", "hostmesh_0.2.0_trixie_arm64.deb", "hostmesh_x.deb",
    ):  # fmt: skip
        (tmp_path / name).touch()
    known = packages.find([tmp_path, tmp_path / "missing"])
    chosen = packages.choose(known, GOOD)
    assert chosen is not None
    assert chosen.path.name == "hostmesh_0.2.0_trixie_amd64.deb"
    old = packages.choose(known, replace(GOOD, codename="bookworm"))
    assert old is not None
    assert old.path.name == "hostmesh_0.10.0+deb12_amd64.deb"
    assert packages.choose(known, replace(GOOD, codename="forky")) is None
    with pytest.raises(UsageError, match="no package of Hostmesh"):
        packages.given([str(tmp_path / "hostmesh_x.deb")])


def test_the_folder_is_private_and_keeps_the_mesh(tmp_path: Path) -> None:
    folder = DeployFolder(tmp_path / "mesh")
    folder.create()
    assert folder.load() is None
    mesh = replace(MESH, etcd=("http://x:2379",), packages=("/a.deb",))
    folder.save(mesh)
    assert folder.load() == mesh
    log = folder.new_log("up")
    for path in (folder.path, folder.path / "log", folder.path / "mesh.json", log):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    folder.path.chmod(0o755)
    with pytest.raises(Refused, match="may be entered by other users"):
        folder.create()
    (folder.path / "mesh.json").write_text('{"format": 9}')
    with pytest.raises(HostmeshError, match="another version wrote it"):
        folder.load()


def test_the_inventory_names_files_and_holds_no_secret(tmp_path: Path) -> None:
    secret = tmp_path / "it's a password"
    secret.write_text("planted-secret")
    mesh = replace(
        MESH, own_etcd=False, etcd=("https://x:2379",), etcd_user="u",
        etcd_password_file=str(secret),
    )  # fmt: skip
    text = inventory(
        mesh, DeployFolder(tmp_path), Path("/share"), facts={"web1": GOOD}, packages={},
        change=Change(["web1"]),
    )  # fmt: skip
    assert "planted-secret" not in text
    everything = json.loads(text)["all"]
    assert "it\\'s a password" in everything["vars"]["hostmesh_etcd_password"]
    assert everything["hosts"]["web1"]["hostmesh_become"] is False
    assert set(everything["children"]) == {"targets", "speaker"}


def test_a_failure_is_one_line_with_its_reason() -> None:
    out = io.StringIO()
    progress = Progress(["web1", "db"], out)
    progress.handle(Event("task", "Start etcd", does="starting etcd"))
    progress.handle(Event("result", "Start etcd", host="db", status="changed", says="etcd runs"))
    progress.handle(Event("result", "Copy", host="db", status="skipped", says="not shown"))
    said = "E: no space left\nShared connection to web1 closed.\nnon-zero return code"
    progress.handle(Event("result", "Start etcd", host="web1", status="failed", text=said))
    lines = [line.partition("] ")[2] for line in out.getvalue().splitlines()]
    assert lines == [
        "      starting etcd …",
        "db    etcd runs",
        "web1  FAILED: start etcd: E: no space left",
    ]
    assert [(each.host, each.task) for each in progress.failures] == [("web1", "Start etcd")]
    assert progress.changed == {"db"}


def test_problems_are_counted_before_anything_is_changed() -> None:
    found = judge(
        MESH, {"web1": replace(GOOD, init="other")}, ansible=ANSIBLE, endpoints=endpoints(MESH)
    )
    with pytest.raises(Refused, match="nothing was changed: 1 problem must be solved"):
        Look(MESH, {}, found).require_good()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "usage: hostmesh-deploy"),
        (("up", "--hosts", "a", "--with-etcd", "b"), 2, "b of --with-etcd is none of --hosts"),
        (("up", "--hosts", "a"), 2, "hint: --with-etcd a, or --etcd URL"),
        (("up",), 2, "no host is named"),
        (("up", "--hosts", "a", "--etcd", "10.0.0.5"), 2, "10.0.0.5 is no URL of etcd"),
        (("up", "--hosts", "a", "--with-etcd", "a", "--cidr", "10.1.2.3/8"), 2, "is no range"),
        (("up", "--hosts", "a", "--with-etcd", "a", "--ssh-key", "/none"), 2, "no file /none"),
        (("status",), 2, "there is no mesh in hostmesh-mesh"),
        (("up", "--json"), 2, "--json"),
    ],
)
def test_a_wrong_command_line_is_explained(
    words: tuple[str, ...], status: int, said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) == status
    assert said in capsys.readouterr().err


def test_it_runs_from_a_clone_without_any_library(tmp_path: Path) -> None:
    argv = [sys.executable, "-S", "-c", "from agent.deploy.main import main; main(['up'])"]
    clone = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        argv, cwd=tmp_path, env=clone, capture_output=True, text=True, check=False, timeout=60
    )
    assert "no host is named" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())
