"""Load settings from the file, the environment and flags; a later source overrides.

All problems of all sources are collected and raised as one :class:`~agent.errors.SettingsError`.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.errors import SettingsError, UsageError
from agent.settings import checks, sections
from agent.settings.lines import find_lines, nearest_line
from agent.settings.sections import DEFAULT_PATH, Settings
from agent.settings.text import nearest, shown
from agent.settings.value_types import Kind

__all__ = ["KEYS", "SECTIONS", "load_settings", "overrides_from_flags"]

SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "etcd": sections.EtcdSettings,
        "mesh": sections.MeshSettings,
        "host": sections.HostSettings,
        "routes": sections.RouteSettings,
        "firewall": sections.FirewallSettings,
        "networks": sections.NetworkSettings,
        "docker": sections.DockerSettings,
        "lease": sections.LeaseSettings,
        "agent": sections.AgentSettings,
        "wireguard": sections.WireGuardSettings,
        "check": sections.CheckSettings,
        "metrics": sections.MetricsSettings,
        "ui": sections.UiSettings,
        "log": sections.LogSettings,
    }
)
"""Section name to the dataclass that describes it."""

KEYS: Mapping[str, Mapping[str, Kind[Any]]] = MappingProxyType(
    {
        name: MappingProxyType({f.name: f.metadata["kind"] for f in dataclasses.fields(cls)})
        for name, cls in SECTIONS.items()
    }
)
"""Section name to its keys, each with its kind."""

_ENV_PREFIX = "HOSTMESH_"
_MAX_BYTES = 1 << 20
_FILE_HINT = "docs/settings.md lists every key; `hostmesh-agent --check` reads the file and exits"
_SECRET_KEYS = re.compile("passw|secret|token", re.IGNORECASE)


class _Loader:
    """Collects values and problems from the sources, then builds :class:`Settings`."""

    def __init__(
        self, path: Path, files_below: Path | None = None, only: Collection[str] = ()
    ) -> None:
        self.path = path
        self._only = only
        self._files_below = files_below
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.sources: dict[str, str] = {}
        self._broken: set[str] = set()  # sections with a wrong value
        self._values: dict[str, dict[str, Any]] = {}
        self._places: dict[str, str] = {}  # "section" or "section.key" to the begin of a message

    def read_file(self) -> None:
        """Read ``path``; without such a file defaults are used, with a note."""
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            self.notes.append(f"{self.path} does not exist; defaults are used")
            return
        except OSError as error:
            self.problems.append(f"{self.path}: cannot be read: {error.strerror}")
            return
        if len(data) > _MAX_BYTES:
            self.problems.append(f"{self.path}: is larger than {_MAX_BYTES} bytes")
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self.problems.append(f"{self.path}:{line}: is not UTF-8 text")
            return
        self.read_text(text)

    def read_text(self, text: str) -> None:
        """Read the file's text."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self.problems.append(_syntax_problem(self.path, text, str(error)))
            return
        except (ValueError, RecursionError) as error:
            # Numbers of thousands of digits and thousands of nested brackets end here.
            self.problems.append(f"{self.path}: is no sensible TOML: {shown(str(error))}")
            return
        lines = find_lines(text)
        for section, table in document.items():
            place = f"{self.path}:{nearest_line(lines, (section,))}"
            if section not in SECTIONS:
                self.problems.append(
                    f"{place}: {_name(section)}: {_unknown_section(section, table)}"
                )
            elif not isinstance(table, dict):
                self.problems.append(f"{place}: {section}: must be one table, [{section}]")
            else:
                self._values.setdefault(section, {})
                self._places[section] = place
                for key, value in table.items():
                    place = f"{self.path}:{nearest_line(lines, (section, key))}"
                    self.take(section, key, value, place)

    def read_operator(self, path: Path) -> None:
        """Take [etcd] of an operator's file, in place of this host's own credentials.

        Endpoints and prefix stay where it has none. Its paths may be relative to it.
        """
        other = _Loader(path, files_below=path.absolute().parent)
        other.read_file()
        self.problems += other.problems or other.notes
        self.problems += [
            f"{path}: [{section}] has no place here, only [etcd]"
            for section in other._values.keys() - {"etcd"}
        ]
        own = self._values.setdefault("etcd", {})
        for key in ("ca_file", "cert_file", "key_file", "username", "password_file"):
            own.pop(key, None)
        own.update(other._values.get("etcd", {}))
        self._places.update(other._places)
        self.sources.update(other.sources)

    def read_environ(self, environ: Mapping[str, str]) -> None:
        """Read HOSTMESH_<SECTION>_<KEY>; names of no section are noted, near misses refused."""
        for variable in sorted(name for name in environ if name.startswith(_ENV_PREFIX)):
            section, _, key = variable.removeprefix(_ENV_PREFIX).lower().partition("_")
            place = f"environment {_name(variable)}"
            if section in SECTIONS:
                self.take_text(section, key, environ[variable], place)
            elif near := nearest(section, SECTIONS, alike=0.75):
                meant = f"{_ENV_PREFIX}{near}_{key}".upper()
                self.problems.append(f"{place}: unknown; did you mean {_name(meant)}?")
            else:
                self.notes.append(f"{place} is not a setting and was ignored")

    def read_overrides(self, overrides: Mapping[str, str]) -> None:
        """Read flags: "section.key" to text."""
        for name, text in overrides.items():
            section, dot, key = name.partition(".")
            if not dot or section not in SECTIONS:
                why = _unknown_section(section, {})
                self.problems.append(f"flag: {_name(name)}: {why}")
            else:
                self.take_text(section, key, text, "flag")

    def take_text(self, section: str, key: str, text: str, place: str) -> None:
        """Take a value that came as text."""
        kind = KEYS[section].get(key)
        self.take(section, key, kind.from_text(text) if kind else text, place)

    def take(self, section: str, key: str, value: object, place: str) -> None:
        """Convert one value; a wrong one becomes a problem at ``place``."""
        if self._only and section not in self._only:
            return
        name = f"{section}.{_name(key)}"
        kind = KEYS[section].get(key)
        if kind is None:
            self.problems.append(f"{place}: {name}: {_unknown_key(section, key)}")
            return
        if self._files_below and key.endswith("_file") and isinstance(value, str):
            value = str(self._files_below / value)
        try:
            converted = kind.convert(value)
        except ValueError as error:
            self.problems.append(f"{place}: {name}: {error}")
            self._broken.add(section)
            return
        self._values.setdefault(section, {})[key] = converted
        self.sources[name] = self._places[name] = place
        self._places.setdefault(section, place)

    def build(self) -> Settings:
        """Check keys against each other, and make the Settings.

        Raises:
            SettingsError: With every problem of every source.
        """
        built: dict[str, Any] = {}
        mesh = self._values.get("mesh", {})
        if "cidr" not in mesh and mesh.keys() - {"within"}:
            place = self._places.get("mesh", str(self.path))
            if not any(": mesh.cidr: " in problem for problem in self.problems):
                self.problems.append(f"{place}: mesh.cidr: is missing; [mesh] needs it")
        for section, cls in SECTIONS.items():
            built[section] = cls(**self._values.get(section, {}))
        settings = Settings(
            **built,
            path=self.path,
            sources=MappingProxyType(dict(self.sources)),
            notes=tuple(self.notes),
        )
        for name, what in checks.cross_checks(settings):
            # A wrong value was replaced by its default: comparing that would mislead.
            if name.partition(".")[0] not in self._broken:
                self.problems.append(f"{self._place_of(name)}: {name}: {what}")
        if self.problems:
            raise SettingsError(tuple(self.problems), hint=_FILE_HINT)
        return settings

    def _place_of(self, name: str) -> str:
        section = name.partition(".")[0]
        return self._places.get(name) or self._places.get(section) or str(self.path)


def _name(name: str) -> str:
    """Return a name from outside so that it is harmless in a message."""
    return name if re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name) else shown(name)


def _syntax_problem(path: Path, text: str, message: str) -> str:
    found = re.search(
        r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", message, re.DOTALL
    )
    if found is None:
        return f"{path}: {shown(message)}"
    line = found[2] or str(text.count("\n") + 1)
    where = f"column {found[3]}" if found[3] else "end of file"
    what = found[1] if found[1].isprintable() else shown(found[1])
    if what == "Invalid value":
        what += "; text needs quotes"
    return f"{path}:{line}: {where}: {what}"


def _unknown_section(name: str, content: object) -> str:
    section = next((each for each, keys in KEYS.items() if name in keys), None)
    if section and not isinstance(content, dict):
        return f"is outside a section; did you mean {name} in [{section}]?"
    if near := nearest(name.lower(), SECTIONS, alike=0.6):
        return f"unknown section; did you mean [{near}]?"
    return "unknown section; there are " + ", ".join(f"[{each}]" for each in SECTIONS)


def _unknown_key(section: str, key: str) -> str:
    if section == "etcd" and _SECRET_KEYS.search(key) and key != "password_file":
        return "unknown key; put the password into a file and name that in etcd.password_file"
    if near := nearest(key.lower(), KEYS[section], alike=0.6):
        return f"unknown key; did you mean {section}.{near}?"
    if other := next((each for each, keys in KEYS.items() if key in keys), None):
        return f"unknown key; did you mean {other}.{key}?"
    return f"unknown key; [{section}] has " + ", ".join(KEYS[section])


def overrides_from_flags(assignments: Sequence[str]) -> dict[str, str]:
    """Turn ``--set section.key=value`` arguments into a mapping for :func:`load_settings`.

    Raises:
        UsageError: An argument has no ``section.key=`` before its value.
    """
    found: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or "." not in name:
            raise UsageError(
                f"--set needs section.key=value, not {shown(assignment)}",
                hint="for example --set log.level=debug",
            )
        found[name.strip()] = value
    return found


def load_settings(
    path: Path = DEFAULT_PATH,
    environ: Mapping[str, str] = MappingProxyType({}),
    overrides: Mapping[str, str] = MappingProxyType({}),
    operator: Path | None = None,
    only: Collection[str] = (),
) -> Settings:
    """Load settings from ``path``, then ``environ``, then ``operator``, then ``overrides``.

    Args:
        path: agent.toml; without it defaults are used and ``notes`` says so.
        environ: The process's environment; HOSTMESH_<SECTION>_<KEY> are read.
        overrides: Flags, "section.key" to the value's text.
        operator: A file whose [etcd] holds the operator's credentials; None for the agent's own.
        only: Sections to read, the others have their defaults; () for all.

    Raises:
        SettingsError: With every problem found in any of them.
    """
    loader = _Loader(path, only=only)
    loader.read_file()
    loader.read_environ(environ)
    if operator is not None:
        loader.read_operator(operator)
    loader.read_overrides(overrides)
    return loader.build()
