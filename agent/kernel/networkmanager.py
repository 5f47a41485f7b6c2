"""Report whether NetworkManager leaves Docker's bridges alone.

Sources: NetworkManager.conf(5): FILE FORMAT (which file wins, ``+=`` and ``-=``), KEYFILE
SECTION (unmanaged-devices), DEVICE SECTION (managed), Device List Format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from agent.model import OWN_BRIDGE, Condition, Severity
from agent.model.objects import LINK_PREFIX

__all__ = ["networkmanager_condition"]

_RUNS: Final = "run/NetworkManager"
_FOLDERS: Final = ("etc/NetworkManager", "run/NetworkManager", "usr/lib/NetworkManager")
"""From the folder that wins to the one that loses, for files of one name."""
_MAIN: Final = "etc/NetworkManager/NetworkManager.conf"
_BRIDGES: Final = {"docker0": "docker0", "br-0123456789ab": "br-*"}
"""A bridge as Docker names it, and the pattern for all of its kind."""
_TUNNELS: Final = f"{LINK_PREFIX}-*"
"""The devices of the agent's tunnels."""
_NO: Final = frozenset({"no", "false", "off", "0"})
_EXCEPT: Final = "except:"
_BY_NAME: Final = "interface-name:"

_Settings = dict[tuple[str, str], list[str]]
"""(section, key) -> the items of its value."""


def networkmanager_condition(root: Path = Path("/")) -> Condition | None:
    """Return ``networkmanager-manages-bridge`` when NetworkManager may change Docker's bridges.

    It then may remove addresses from docker0 or set it down when a profile is activated or its
    state is restored. None when it has not run since boot, or its configuration leaves the
    bridges unmanaged. Udev rules and ``nmcli device set`` are not seen, and a file that cannot be
    read counts as missing: this is advice.

    Args:
        root: Where the file system begins, for tests.
    """
    if not (root / _RUNS).exists():
        return None
    settings: _Settings = {}
    for path in _files(root):
        _read(path, settings)
    bridges = dict(_BRIDGES)
    if (root / "sys/class/net" / OWN_BRIDGE).exists():  # only with docker.attach = "network"
        bridges[OWN_BRIDGE] = OWN_BRIDGE
    for tunnel in (root / "sys/class/net").glob(_TUNNELS):
        bridges[tunnel.name] = _TUNNELS
    found = (shown for name, shown in bridges.items() if not _is_unmanaged(name, settings))
    managed = list(dict.fromkeys(found))
    if not managed:
        return None
    items = ";".join(_BY_NAME + shown for shown in managed)
    return Condition(
        name="networkmanager-manages-bridge",
        cause=f"NetworkManager's configuration does not leave {' and '.join(managed)} unmanaged: "
        "it may change what Docker and the agent set up there",
        hint=f"write [keyfile] unmanaged-devices+={items} (two lines) to "
        "/etc/NetworkManager/conf.d/hostmesh.conf, then: nmcli general reload",
        severity=Severity.INFO,
    )


def _files(root: Path) -> list[Path]:
    """Return the files in the order in which they are read: a later one overrides."""
    by_folder: list[list[Path]] = []
    seen: set[str] = set()
    for folder in _FOLDERS:
        found = sorted((root / folder / "conf.d").glob("*.conf"))
        by_folder.append([path for path in found if path.name not in seen])
        seen.update(path.name for path in found)
    own, run, vendor = by_folder
    return [*vendor, *run, root / _MAIN, *own]


def _read(path: Path, settings: _Settings) -> None:
    """Fold one file into ``settings``."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    section = ""
    for line in (each.strip() for each in lines):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            _set(settings, section, name.strip(), _items(value))


def _set(settings: _Settings, section: str, name: str, items: list[str]) -> None:
    plain = name.rstrip("+-").strip()
    before = settings.get((section, plain), [])
    if name.endswith("+"):
        items = before + items
    elif name.endswith("-"):
        items = [each for each in before if each not in items]
    settings[section, plain] = items


def _items(value: str) -> list[str]:
    return [item for item in re.split(r"[;,\s]+", value.strip()) if item]


def _is_unmanaged(name: str, settings: _Settings) -> bool:
    if _matches(name, settings.get(("keyfile", "unmanaged-devices"), [])):
        return True
    return any(
        value and value[0].lower() in _NO and _matches(name, match)
        for value, match in _device_sections(settings)
    )


def _device_sections(settings: _Settings) -> Iterator[tuple[list[str], list[str]]]:
    """Yield ``managed`` and ``match-device`` (absent: for all) of each [device…]."""
    for (section, key), value in settings.items():
        if section.startswith("device") and key == "managed":
            yield value, settings.get((section, "match-device"), ["*"])


def _matches(name: str, specs: list[str]) -> bool:
    """Whether a device list takes in the bridge ``name``; one ``except:`` that fits undoes all.

    A list of exceptions only takes in everything else.
    """
    refused = [spec.removeprefix(_EXCEPT) for spec in specs if spec.startswith(_EXCEPT)]
    wanted = [spec for spec in specs if not spec.startswith(_EXCEPT)]
    if any(_fits(name, spec) for spec in refused):
        return False
    return any(_fits(name, spec) for spec in wanted) or (bool(refused) and not wanted)


def _fits(name: str, spec: str) -> bool:
    if spec in ("*", "type:bridge", "driver:bridge"):
        return True
    if not spec.startswith(_BY_NAME):
        return spec == name
    pattern = spec.removeprefix(_BY_NAME)
    if pattern.startswith("="):
        return pattern[1:] == name
    return fnmatchcase(name, pattern.removeprefix("~").replace("[", "[[]"))
