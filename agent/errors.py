"""The error tree: what can go wrong for an operator, each with a hint, an exit status and a code.

Every error that a user can meet is a subclass of :class:`HostmeshError`. Its message
says what failed, on what and why; its hint says what to do. ``agentctl`` and
``hostmesh-agent`` print both in one or two lines and leave with ``exit_code``; a
traceback is a bug. The control socket sends ``code`` as well. Both are documented in
docs/exit-status.md, each is that of one class here, and neither changes its meaning: scripts
depend on them.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AgentUnavailable",
    "CannotTell",
    "ClaimConflict",
    "DependencyMissing",
    "DockerConfigError",
    "DockerError",
    "EtcdAuthError",
    "EtcdError",
    "EtcdUnavailable",
    "FirewallError",
    "HostmeshError",
    "KernelError",
    "MeshConfigError",
    "NoFreeSubnet",
    "NotRoot",
    "OverlapError",
    "Refused",
    "SettingsError",
    "StateError",
    "UsageError",
]


class HostmeshError(Exception):
    """Base of everything Hostmesh raises on purpose.

    Args:
        message: What failed, on what, and why. One sentence, no trailing full stop.
        hint: What the operator can do about it. Empty when there is nothing to add.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class UsageError(HostmeshError):
    """The command line asks for something that cannot be meant."""

    exit_code = 2
    code = "usage"


class CannotTell(HostmeshError):
    """A question (``agentctl diff``) has no answer now: neither yes nor no."""

    exit_code = 3
    code = "cannot-tell"


class SettingsError(HostmeshError):
    """agent.toml, the environment or the flags are wrong.

    Args:
        problems: Every problem found, each ``file:line: what``; all are reported at once.
    """

    exit_code = 10
    code = "settings-invalid"

    def __init__(self, problems: tuple[str, ...], *, hint: str = "") -> None:
        super().__init__("; ".join(problems), hint=hint)
        self.problems = problems


class NotRoot(HostmeshError):
    """The operation changes the kernel or Docker and needs root (CAP_NET_ADMIN)."""

    exit_code = 11
    code = "not-root"


class DependencyMissing(HostmeshError):
    """A program that the host must have (iptables, ...) is not installed."""

    exit_code = 12
    code = "dependency-missing"


class EtcdError(HostmeshError):
    """etcd answered, but not with what was asked for."""

    exit_code = 13
    code = "etcd-error"


class EtcdUnavailable(EtcdError):
    """No endpoint answered within its deadline. Always worth retrying."""

    exit_code = 14
    code = "etcd-unavailable"


class EtcdAuthError(EtcdError):
    """etcd refused the user, the password, the token or the certificate."""

    exit_code = 15
    code = "etcd-auth"


class MeshConfigError(HostmeshError):
    """``<prefix>/config`` is absent, is not valid JSON or describes an impossible mesh."""

    exit_code = 16
    code = "mesh-config"


class NoFreeSubnet(HostmeshError):
    """Every subnet of the mesh is held or reserved."""

    exit_code = 17
    code = "no-free-subnet"


class OverlapError(HostmeshError):
    """A range of the mesh meets an address or a route that is not the mesh's."""

    exit_code = 18
    code = "overlap"


class DockerError(HostmeshError):
    """The Docker Engine does not answer, refuses, or did not come up."""

    exit_code = 19
    code = "docker-error"


class DockerConfigError(DockerError):
    """daemon.json cannot be parsed, or holds something that must not be replaced unasked."""

    exit_code = 20
    code = "docker-config"


class KernelError(HostmeshError):
    """The kernel refused a netlink request or a sysctl."""

    exit_code = 21
    code = "kernel-error"


class FirewallError(KernelError):
    """iptables refused, or its rules could not be read."""

    exit_code = 22
    code = "firewall-error"


class AgentUnavailable(HostmeshError):
    """The control socket does not answer: hostmesh-agent is not running here."""

    exit_code = 23
    code = "agent-unavailable"


class Refused(HostmeshError):
    """The operation would do harm and was not forced."""

    exit_code = 24
    code = "refused"


class ClaimConflict(HostmeshError):
    """Another host owns what this host was about to write."""

    exit_code = 25
    code = "claim-conflict"


class StateError(HostmeshError):
    """The agent's own files under /var/lib/hostmesh cannot be read or written."""

    exit_code = 26
    code = "state-error"
