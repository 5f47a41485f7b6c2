"""systemd-networkd's ManageForeignRoutes, wherever it may be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.kernel.hostchecks import networkd_condition

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
