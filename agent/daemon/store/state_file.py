"""The agent's own small facts on disk: has the operator said leave; what the agent switched.

One JSON file, written atomically. It holds only what cannot be read back from the kernel
or from etcd: an operator's word, values to put back when the host leaves, and the mark by
which the kernel's routes are known to be ours.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agent.disk import replace_file
from agent.errors import StateError

__all__ = ["PreviousValues", "StateFile"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class PreviousValues:
    """What the agent found before it changed it; None when it changed nothing.

    Attributes:
        ip_forward: Value of net.ipv4.ip_forward before ("0").
        forward_policy: Policy of filter FORWARD before ("ACCEPT").
    """

    ip_forward: str | None = None
    forward_policy: str | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    version: int = _VERSION
    left: bool = False
    leaving: bool = False
    switched: PreviousValues = PreviousValues()
    route_protocol: int | None = None
    firewalld_sources: tuple[str, ...] = ()


class StateFile:
    """``state.json`` in the agent's state directory. Any thread may change it.

    Args:
        state_dir: Usually /var/lib/hostmesh; created when missing.

    Raises:
        StateError: The directory or the file cannot be read or written. A file that is
            damaged is an error too: guessing "not left" could bring a host back unasked.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "state.json"
        self._lock = threading.Lock()
        self._content = self._load()

    @property
    def left(self) -> bool:
        """The operator said leave, and has not said join since."""
        return self._content.left

    @property
    def leaving(self) -> bool:
        """The operator said leave, and not all of it is known to be done."""
        return self._content.leaving

    @property
    def previous_values(self) -> PreviousValues:
        """What to put back when the host leaves."""
        return self._content.switched

    @property
    def route_protocol(self) -> int | None:
        """The rtm_protocol that this host's routes bear; None when it has none."""
        return self._content.route_protocol

    @property
    def firewalld_sources(self) -> tuple[str, ...]:
        """Sources that the agent put into firewalld's zone trusted."""
        return self._content.firewalld_sources

    def set_firewalld_sources(self, sources: tuple[str, ...]) -> None:
        """Remember what to take out of firewalld; called before it is put in."""
        self._change(firewalld_sources=sources)

    def set_left(self, *, left: bool) -> None:
        """Remember the operator's word over restarts and reboots; "leave" is yet to be done."""
        self._change(left=left, leaving=left)

    def set_gone(self) -> None:
        """Remember that the host has left and nothing remains to be done."""
        self._change(leaving=False)

    def save_previous_values(self, values: PreviousValues) -> None:
        """Remember what was found before the agent changed it; called before the change."""
        self._change(switched=values)

    def set_route_protocol(self, protocol: int | None) -> None:
        """Remember the mark of this host's routes, by which a later life finds them."""
        self._change(route_protocol=protocol)

    def _change(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of _Content
        with self._lock:
            content = replace(self._content, **changes)
            if content != self._content:
                self._store(content)

    def _load(self) -> _Content:
        try:
            raw = json.loads(self._path.read_text())
            switched = raw.get("switched", {})
            protocol = raw.get("route_protocol")
            return _Content(
                left=bool(raw["left"]),
                leaving=bool(raw["left"] and raw.get("leaving")),
                switched=PreviousValues(
                    ip_forward=switched.get("ip_forward"),
                    forward_policy=switched.get("forward_policy"),
                ),
                route_protocol=None if protocol is None else int(protocol),
                firewalld_sources=tuple(map(str, raw.get("firewalld_sources", ()))),
            )
        except FileNotFoundError:
            return _Content()
        except OSError as error:
            raise StateError(
                f"{self._path} cannot be read: {error.strerror}", hint="check its owner and mode"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(
                f"{self._path} is damaged: {error}",
                hint='write {"version": 1, "left": false} to it, or true if this host has left',
            ) from error

    def _store(self, content: _Content) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, (json.dumps(asdict(content)).encode(),), 0o644)
        except OSError as error:
            raise StateError(
                f"{self._path} cannot be written: {error.strerror}",
                hint="check free space, owner and mode",
            ) from error
        self._content = content
