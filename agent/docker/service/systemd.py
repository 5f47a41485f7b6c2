"""Ask systemd for the properties of units."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from agent.programs import Runner

__all__ = ["DOCKER_UNIT", "FOLDER", "Systemd", "Unit", "number", "start_command"]

DOCKER_UNIT: Final = "docker.service"
FOLDER: Final = Path("/run/systemd/system")
"""Is there when systemd runs the host."""

Unit: TypeAlias = Mapping[str, str]
"""A unit's properties by their names; values of one that comes several times are lines."""

_TIMEOUT_S: Final = 10.0
_QUOTES: Final = ("'", '"')
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"


class Systemd:
    """Asks systemd.

    Args:
        runner: Runs systemctl.
        folder: Is there when systemd runs the host.
    """

    def __init__(self, runner: Runner, folder: Path = FOLDER) -> None:
        self._runner = runner
        self._folder = folder

    @property
    def runs(self) -> bool:
        """Whether systemd runs the host."""
        return self._folder.exists()

    def show(self, properties: str, *units: str) -> tuple[Unit, ...] | None:
        """Return properties of units; None when systemd does not answer.

        Args:
            properties: Names, separated by commas.
            units: Their names, or patterns.
        """
        argv = ("systemctl", "show", f"--property={properties}", *units)
        shown = self._runner.run(argv, _TIMEOUT_S)
        return tuple(map(_unit, shown.output.split("\n\n"))) if shown.status == 0 else None

    def show_docker(self, properties: str) -> Unit:
        """Return properties of Docker's unit; none when systemd does not answer."""
        return (self.show(properties, DOCKER_UNIT) or ({},))[0]


def number(unit: Unit, name: str) -> int:
    """Return a property that is a number, 0 when it is none."""
    value = unit.get(name, "")
    return int(value) if value.isdecimal() else 0


def start_command(unit: Unit) -> tuple[str, ...]:
    """Return the command line in a unit's ExecStart, with variables filled in.

    They come from Environment= and EnvironmentFile=, as Debian's DOCKER_OPTS do.
    """
    match = re.match(r".*?argv\[\]=(.*?) ; ", unit.get("ExecStart", ""))
    if not match:
        return ()
    variables = _environment(unit)
    return tuple(part for each in match[1].split() for part in _filled_in(each, variables))


def _unit(shown: str) -> Unit:
    found: dict[str, str] = {}
    for line in shown.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def _environment(unit: Unit) -> Mapping[str, str]:
    """Return a unit's variables; files win, as in systemd."""
    found: list[str] = []
    for line in unit.get("Environment", "").splitlines():
        found += _split(line)
    for line in unit.get("EnvironmentFiles", "").splitlines():
        path = line.rpartition(" (ignore_errors=")[0] or line
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = Path(path).read_text("utf-8")
            found += (each for line in text.splitlines() for each in _assignment(line))
    return dict(each.partition("=")[::2] for each in found if "=" in each)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is not closed
        return text.split()


def _assignment(line: str) -> list[str]:
    """Return ``NAME=value`` of a line of an environment file, its quotes taken off."""
    name, equals, value = line.strip().partition("=")
    if not equals or name.startswith(("#", ";")):
        return []
    return [f"{name}={value.strip()[1:-1] if value.strip()[:1] in _QUOTES else value.strip()}"]


def _filled_in(part: str, variables: Mapping[str, str]) -> list[str]:
    """Fill variables in as systemd does: ``$NAME`` alone is split, ``${NAME}`` stays one."""
    if re.fullmatch(rf"\${_NAME}", part):
        return _split(variables.get(part[1:], ""))
    return [re.sub(rf"\$\{{({_NAME})\}}", lambda found: variables.get(found[1], ""), part)]
