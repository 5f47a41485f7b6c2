"""Report settings of systemd-networkd and NetworkManager that undo the agent's work.

Sources: networkd.conf(5) and systemd.syntax(7) for where the setting may be and which wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.kernel.networkmanager import networkmanager_condition
from agent.model import Condition, Severity

__all__ = ["host_conditions", "networkd_condition"]

_RUNS: Final = "run/systemd/netif/state"
_FOLDERS: Final = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd")
_SETTING: Final = "ManageForeignRoutes"
_NO: Final = frozenset({"no", "false", "off", "n", "f", "0"})


def host_conditions(root: Path = Path("/")) -> tuple[Condition, ...]:
    """Return conditions about the configuration of this host's network services.

    Args:
        root: Where the file system begins, for tests.
    """
    found = (networkd_condition(root), networkmanager_condition(root))
    return tuple(each for each in found if each is not None)


def networkd_condition(root: Path = Path("/")) -> Condition | None:
    """Return ``networkd-manages-foreign-routes`` when systemd-networkd would remove routes.

    It does so when it (re)starts or reconfigures a link, unless ManageForeignRoutes=no; the
    monitor brings them back, but packets are lost meanwhile. None when networkd has not run
    since boot, or has that setting. A file that cannot be read counts as missing: this is advice.

    Args:
        root: Where the file system begins, for tests.
    """
    if not (root / _RUNS).exists():
        return None
    value = "yes"
    for path in _files(root):
        value = _last_value(path) or value
    if value.lower() in _NO:
        return None
    return Condition(
        name="networkd-manages-foreign-routes",
        cause="systemd-networkd removes routes it did not make when it restarts or reconfigures "
        f"a link ({_SETTING}={value})",
        hint=f"write [Network] {_SETTING}=no to /etc/systemd/networkd.conf.d/hostmesh.conf",
        severity=Severity.INFO,
    )


def _files(root: Path) -> list[Path]:
    """Return networkd.conf, then drop-ins by name; of one name the first folder's counts."""
    mains = [root / folder / "networkd.conf" for folder in _FOLDERS]
    found = [path for path in mains if path.is_file()][:1]
    drop_ins: dict[str, Path] = {}
    for folder in _FOLDERS:
        for path in (root / folder / "networkd.conf.d").glob("*.conf"):
            drop_ins.setdefault(path.name, path)
    return found + [drop_ins[name] for name in sorted(drop_ins)]


def _last_value(path: Path) -> str:
    """Return the last value of the setting in this file, "" without one."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    section, value = "", ""
    for line in (each.strip() for each in lines):
        if line.startswith("["):
            section = line
        elif section == "[Network]" and not line.startswith(("#", ";")):
            name, _, text = line.partition("=")
            if name.strip() == _SETTING:
                value = text.strip()
    return value
