"""Read, write and undo net.ipv4 settings of this network namespace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import KernelError
from agent.model import Condition, Severity, Uplink

__all__ = ["SysctlChange", "Sysctls"]

_FORWARDING: Final = "ip_forward"
_STRICT: Final = "1"


@dataclass(frozen=True, slots=True)
class SysctlChange:
    """A change that can be undone. ``name`` is relative to net.ipv4."""

    name: str
    before: str
    after: str


class Sysctls:
    """The settings of this network namespace.

    Args:
        root: Where net.ipv4 is.
    """

    def __init__(self, root: Path = Path("/proc/sys/net/ipv4")) -> None:
        self._root = root

    def read(self, name: str) -> str:
        """Return the value of net.ipv4.``name`` (slashes between parts), stripped.

        Raises:
            KernelError: There is no such setting, or it cannot be read.
        """
        try:
            return (self._root / name).read_text(encoding="ascii").strip()
        except OSError as error:
            raise KernelError(f"cannot read {self._root / name}: {error.strerror}") from error

    def write(self, name: str, value: str) -> SysctlChange | None:
        """Set net.ipv4.``name``. None when it had the value already.

        Raises:
            KernelError: It cannot be read or written, or does not keep what was written.
        """
        before = self.read(name)
        if before == value:
            return None
        path = self._root / name
        try:
            path.write_text(value, encoding="ascii")
        except OSError as error:
            raise KernelError(
                f"cannot write {value} to {path}: {error.strerror}",
                hint="the agent needs root and a writable /proc/sys",
            ) from error
        if self.read(name) != value:
            raise KernelError(f"{path} did not keep {value}")
        return SysctlChange(name, before, value)

    def ip_forward(self) -> bool:
        """Whether the host forwards IPv4."""
        return self.read(_FORWARDING) == "1"

    def enable_forwarding(self) -> SysctlChange | None:
        """Switch IPv4 forwarding on; None when it was.

        The caller must have closed FORWARD to strangers first. Docker sets its policy to DROP only
        when Docker itself switched forwarding on, so without that the host is an open router.
        Writing ip_forward resets some per-interface settings (ip-sysctl.rst): when it is on,
        nothing is written.
        """
        return self.write(_FORWARDING, "1")

    def undo(self, change: SysctlChange) -> bool:
        """Restore the old value unless it was set since; return whether it was restored."""
        if self.read(change.name) != change.after:
            return False
        self.write(change.name, change.before)
        return True

    def reverse_path_condition(self, uplink: Uplink, *, mixed: bool = False) -> Condition | None:
        """Return ``rp-filter-strict`` when the uplink drops packets whose way back is another one.

        The larger of "all" and the interface's value counts (ip-sysctl.rst); 1 is strict
        (RFC 3704 section 2.2), 2 loose.

        Args:
            mixed: Peers may send by the uplink what is answered through a tunnel.
        """
        values = (self.read("conf/all/rp_filter"), self.read(f"conf/{uplink.name}/rp_filter"))
        if max(values) != _STRICT:
            return None
        return Condition(
            name="rp-filter-strict",
            subject=uplink.name,
            cause=f"net.ipv4.conf.{uplink.name}.rp_filter is 1: a peer's packets are dropped "
            "unless its subnet is routed by this very interface"
            + (", and the mesh uses a tunnel, too" if mixed else ""),
            hint=("" if mixed else "harmless on a host with one uplink; otherwise: ")
            + f"sysctl net.ipv4.conf.{uplink.name}.rp_filter=2",
            severity=Severity.WARNING if mixed else Severity.INFO,
        )
