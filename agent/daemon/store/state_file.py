"""The agent's own facts on disk, in one JSON file that is written atomically.

It holds what cannot be read back from the kernel or from etcd.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.disk import replace_file
from agent.errors import StateError

__all__ = ["PreviousValues", "SavedState", "StateFile"]


@dataclass(frozen=True, slots=True)
class PreviousValues:
    """Values before the agent changed them; None where it changed nothing.

    Attributes:
        ip_forward: Of net.ipv4.ip_forward ("0").
        forward_policy: Of filter FORWARD ("ACCEPT").
    """

    ip_forward: str | None = None
    forward_policy: str | None = None


@dataclass(frozen=True, slots=True)
class SavedState:
    """Content of the file. Older and newer agents read the same names.

    Attributes:
        left: The operator said leave, and has not said join since.
        leaving: The operator said leave, and not all of it is known to be done.
        switched: What to put back when the host leaves.
        route_protocol: The rtm_protocol of this host's routes; None when it has none.
        firewalld_sources: Sources that the agent put into firewalld's zone trusted.
    """

    version: int = 1
    left: bool = False
    leaving: bool = False
    switched: PreviousValues = field(default_factory=PreviousValues)
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
        self.now = self._load()

    def change(self, **changes: Any) -> None:  # noqa: ANN401 - the fields of SavedState
        """Write fields of :class:`SavedState`; call it before what they describe is changed.

        Raises:
            StateError: They cannot be written, and stay as they were.
        """
        with self._lock:
            state = replace(self.now, **changes)
            if state != self.now:
                self._store(state)
                self.now = state

    @property
    def firewalld_sources(self) -> tuple[str, ...]:
        """Return the sources that the agent put into firewalld's zone trusted."""
        return self.now.firewalld_sources

    def set_firewalld_sources(self, sources: tuple[str, ...]) -> None:
        """Write what to take out of firewalld; call it before they are put in."""
        self.change(firewalld_sources=sources)

    def _load(self) -> SavedState:
        try:
            raw = json.loads(self._path.read_text())
            switched = raw.get("switched", {})
            protocol = raw.get("route_protocol")
            return SavedState(
                left=bool(raw["left"]),
                leaving=bool(raw["left"] and raw.get("leaving")),
                switched=PreviousValues(switched.get("ip_forward"), switched.get("forward_policy")),
                route_protocol=None if protocol is None else int(protocol),
                firewalld_sources=tuple(map(str, raw.get("firewalld_sources", ()))),
            )
        except FileNotFoundError:
            return SavedState()
        except OSError as error:
            raise StateError(
                f"{self._path} cannot be read: {error.strerror}", hint="check its owner and mode"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(
                f"{self._path} is damaged: {error}",
                hint='write {"version": 1, "left": false} to it, or true if this host has left',
            ) from error

    def _store(self, state: SavedState) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, (json.dumps(asdict(state)).encode(),), 0o644)
        except OSError as error:
            raise StateError(
                f"{self._path} cannot be written: {error.strerror}",
                hint="check free space, owner and mode",
            ) from error
