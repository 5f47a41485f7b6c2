"""systemd-networkd's ManageForeignRoutes and NetworkManager's bridges, wherever written."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.kernel.hostchecks import host_conditions, networkd_condition
from agent.kernel.networkmanager import networkmanager_condition

pytestmark = pytest.mark.unit


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "reported"),
    [
        ({}, True),
        ({"etc/systemd/networkd.conf": "[Network]\nManageForeignRoutes=no\n"}, False),
        ({"etc/systemd/networkd.conf": "[Network]\n#ManageForeignRoutes=no\n"}, True),
        ({"etc/systemd/networkd.conf": "[DHCPv4]\nManageForeignRoutes=no\n"}, True),
        (
            {
                "etc/systemd/networkd.conf": "[Network]\nManageForeignRoutes=no\n",
                "usr/lib/systemd/networkd.conf.d/50-x.conf": "[Network]\nManageForeignRoutes=yes\n",
            },
            True,
        ),
        (
            {
                "etc/systemd/networkd.conf.d/50-x.conf": "[Network]\nManageForeignRoutes = off\n",
                "usr/lib/systemd/networkd.conf.d/50-x.conf": "[Network]\nManageForeignRoutes=yes\n",
            },
            False,
        ),
    ],
)
def test_where_networkd_runs(tmp_path: Path, files: dict[str, str], reported: bool) -> None:
    write(tmp_path, "run/systemd/netif/state", "")
    for name, text in files.items():
        write(tmp_path, name, text)
    assert (networkd_condition(tmp_path) is not None) is reported


def test_where_networkd_does_not_run(tmp_path: Path) -> None:
    assert networkd_condition(tmp_path) is None


BOTH = "docker0 and br-*"
ETC = "etc/NetworkManager/conf.d/50-x.conf"
VENDOR = "usr/lib/NetworkManager/conf.d/50-x.conf"
UNMANAGED = "[keyfile]\nunmanaged-devices="


@pytest.mark.parametrize(
    ("files", "managed"),
    [
        ({}, BOTH),
        ({ETC: UNMANAGED + "interface-name:docker0\n"}, "br-*"),
        ({ETC: UNMANAGED + "interface-name:docker0;interface-name:br-*\n"}, ""),
        ({ETC: UNMANAGED + "interface-name:docker*,interface-name:br-????????????\n"}, ""),
        ({ETC: UNMANAGED + "interface-name:=br-*;docker0\n"}, "br-*"),
        ({ETC: UNMANAGED + "type:bridge\n"}, ""),
        ({ETC: UNMANAGED + "*;except:interface-name:docker0\n"}, "docker0"),
        ({ETC: UNMANAGED + "except:interface-name:eth*\n"}, ""),
        ({ETC: "#" + UNMANAGED + "*\n#unmanaged-devices=*\n"}, BOTH),
        ({ETC: "[main]\nunmanaged-devices=*\n"}, BOTH),
        ({"etc/NetworkManager/NetworkManager.conf": UNMANAGED + "*\n"}, ""),
        ({"run/NetworkManager/conf.d/a.conf": UNMANAGED + "*\n"}, ""),
        ({VENDOR: UNMANAGED + "*\n"}, ""),
        ({VENDOR: UNMANAGED + "*\n", ETC: ""}, BOTH),
        (
            {
                VENDOR: UNMANAGED + "interface-name:docker0\n",
                "etc/NetworkManager/conf.d/hostmesh.conf": "[keyfile]\n"
                "unmanaged-devices+=interface-name:br-*\n",
            },
            "",
        ),
        (
            {
                VENDOR: UNMANAGED + "*\n",
                "etc/NetworkManager/conf.d/a.conf": UNMANAGED + "interface-name:wl*\n",
            },
            BOTH,
        ),
        ({ETC: "[device-docker]\nmatch-device=interface-name:docker0\nmanaged=0\n"}, "br-*"),
        ({ETC: "[device]\nmanaged=false\n"}, ""),
        ({ETC: "[device]\nmatch-device=type:bridge\nmanaged=1\n"}, BOTH),
    ],
)
def test_where_networkmanager_runs(tmp_path: Path, files: dict[str, str], managed: str) -> None:
    (tmp_path / "run/NetworkManager").mkdir(parents=True)
    for name, text in files.items():
        write(tmp_path, name, text)
    found = networkmanager_condition(tmp_path)
    assert (found is not None) is bool(managed)
    if found is not None:
        assert f"does not leave {managed} unmanaged" in found.cause


def test_the_agents_own_bridge_counts_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "run/NetworkManager").mkdir(parents=True)
    docker = "interface-name:docker0;interface-name:br-*"
    write(tmp_path, ETC, f"[keyfile]\nunmanaged-devices={docker}\n")
    assert networkmanager_condition(tmp_path) is None
    (tmp_path / "sys/class/net/hostmesh0").mkdir(parents=True)
    found = networkmanager_condition(tmp_path)
    assert found is not None
    assert "interface-name:hostmesh0" in found.hint


def test_the_devices_of_tunnels_count_where_there_are_some(tmp_path: Path) -> None:
    (tmp_path / "run/NetworkManager").mkdir(parents=True)
    docker = "interface-name:docker0;interface-name:br-*"
    write(tmp_path, ETC, f"[keyfile]\nunmanaged-devices={docker}\n")
    for name in ("hm-vxlan", "hm-wg"):
        (tmp_path / "sys/class/net" / name).mkdir(parents=True)
    found = networkmanager_condition(tmp_path)
    assert found is not None
    assert found.hint.count("interface-name:hm-*") == 1
    write(tmp_path, ETC, f"[keyfile]\nunmanaged-devices={docker};interface-name:hm-*\n")
    assert networkmanager_condition(tmp_path) is None


def test_the_hint_is_what_ends_the_condition(tmp_path: Path) -> None:
    (tmp_path / "run/NetworkManager").mkdir(parents=True)
    (found,) = host_conditions(tmp_path)
    section, setting = found.hint.split()[1:3]
    path = found.hint.split(" to ")[1].split(",")[0].lstrip("/")
    write(tmp_path, path, f"{section}\n{setting}\n")
    assert host_conditions(tmp_path) == ()


def test_both_services_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "run/NetworkManager").mkdir(parents=True)
    write(tmp_path, "run/systemd/netif/state", "")
    assert {each.name for each in host_conditions(tmp_path)} == {
        "networkd-manages-foreign-routes",
        "networkmanager-manages-bridge",
    }


def test_where_neither_runs(tmp_path: Path) -> None:
    assert host_conditions(tmp_path) == ()
