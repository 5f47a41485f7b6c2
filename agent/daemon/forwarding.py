"""net.ipv4.ip_forward, switched on without making the host an open router.

Docker up to 27 sets the policy of filter FORWARD to DROP only if it was the one to switch
forwarding on (facts read from its sources; seen on 20.10). An agent that switches it on first
would leave the host forwarding anything between its interfaces. So whoever switches it on has
to do what Docker does: the policy first, then the sysctl. What was found is written down
before it is changed, and is put back when the host leaves.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from agent.daemon.state import StateFile, Switched

__all__ = ["Forwarding"]


class ForwardPolicy(Protocol):
    """What the firewall room offers for the policy of filter FORWARD."""

    def forward_policy(self) -> str:
        """The policy now, "ACCEPT" or "DROP"."""
        ...

    def set_forward_policy(self, policy: str) -> None:
        """Set it."""
        ...


class ForwardSysctl(Protocol):
    """What the kernel room offers for net.ipv4.ip_forward."""

    def ip_forward(self) -> bool:
        """Whether the host forwards now."""
        ...

    def set_ip_forward(self, *, on: bool) -> None:
        """Switch it."""
        ...


class Forwarding:
    """Switches forwarding on when it is off, and back when the host leaves.

    Args:
        policy: None when settings say that the operator keeps the rules: then the policy
            is theirs too and only the sysctl is switched.
    """

    def __init__(
        self, *, sysctl: ForwardSysctl, policy: ForwardPolicy | None, state: StateFile
    ) -> None:
        self._sysctl = sysctl
        self._policy = policy
        self._state = state
        self._log = structlog.get_logger("agent.forwarding")

    def ensure(self) -> bool:
        """Forwarding is on after this. True when it had to be switched.

        Raises:
            KernelError: The policy or the sysctl could not be read or set.
        """
        if self._sysctl.ip_forward():
            return False
        found = self._policy.forward_policy() if self._policy else None
        known = self._state.switched
        self._state.set_switched(
            Switched(ip_forward="0", forward_policy=known.forward_policy or found)
        )
        if self._policy is not None:
            self._policy.set_forward_policy("DROP")
        self._sysctl.set_ip_forward(on=True)
        self._log.info("forwarding switched on", forward_policy="DROP" if self._policy else "as is")
        return True

    def undo(self) -> tuple[str, ...]:
        """Put back what :meth:`ensure` found, the sysctl first. Lines of what was done.

        Raises:
            KernelError: The policy or the sysctl could not be set.
        """
        switched = self._state.switched
        done: list[str] = []
        if switched.ip_forward == "0":
            self._sysctl.set_ip_forward(on=False)
            done.append("net.ipv4.ip_forward is 0 again")
        if switched.forward_policy is not None and self._policy is not None:
            self._policy.set_forward_policy(switched.forward_policy)
            done.append(f"the policy of FORWARD is {switched.forward_policy} again")
        if done:
            self._state.set_switched(Switched())
        return tuple(done)
