"""net.ipv4.ip_forward, switched on without making the host an open router.

Docker up to 27 sets the policy of filter FORWARD to DROP only if it was the one to switch
forwarding on (facts read from its sources; seen on 20.10). An agent that switches it on first
would leave the host forwarding anything between its interfaces. So the agent does the same: the
policy first, then the sysctl. The previous values are saved before they are changed, and put back
when the host leaves.
"""

from __future__ import annotations

import structlog

from agent.daemon.store.state_file import PreviousValues, StateFile
from agent.kernel.firewall import Firewall
from agent.kernel.sysctl import SysctlChange, Sysctls

__all__ = ["IpForward"]


class IpForward:
    """Switches forwarding on when it is off, and back when the host leaves.

    Args:
        sysctls: Of this network namespace.
        firewall: None when settings say that the operator keeps the rules: then FORWARD's
            policy is theirs too and only the sysctl is switched.
    """

    def __init__(self, *, sysctls: Sysctls, firewall: Firewall | None, state: StateFile) -> None:
        self._sysctls = sysctls
        self._firewall = firewall
        self._state = state
        self._log = structlog.get_logger("agent.forwarding")

    def ensure(self) -> bool:
        """Switch forwarding on; return whether it was off.

        Raises:
            KernelError: The policy or the sysctl could not be read or set.
            StateError: The previous values could not be saved; nothing is changed.
        """
        if self._sysctls.ip_forward():
            return False
        known = self._state.now.switched
        self._state.change(
            switched=PreviousValues(ip_forward="0", forward_policy=known.forward_policy)
        )
        if self._firewall is not None:
            previous = self._firewall.set_forward_policy_drop()
            self._state.change(
                switched=PreviousValues(
                    ip_forward="0", forward_policy=known.forward_policy or previous
                )
            )
        self._sysctls.enable_forwarding()
        self._log.info("forwarding-enabled", forward_policy="DROP" if self._firewall else "")
        return True

    def undo(self) -> tuple[str, ...]:
        """Put back the previous values, the sysctl first; return lines of what was done.

        Raises:
            KernelError: The policy or the sysctl could not be set.
        """
        switched = self._state.now.switched
        if switched.ip_forward != "0":
            return ()
        if not self._sysctls.undo(SysctlChange("ip_forward", "0", "1")):
            # Another program has set it since, and relies on it. While forwarding is on, the
            # policy that closes FORWARD stays, too: the host must not become an open router.
            self._state.change(switched=PreviousValues())
            return ("net.ipv4.ip_forward was set by another program since; it stays 1",)
        done = ["net.ipv4.ip_forward is 0 again"]
        if switched.forward_policy is not None and self._firewall is not None:
            self._firewall.restore_forward_policy(switched.forward_policy)
            done.append(f"the policy of FORWARD is {switched.forward_policy} again")
        self._state.change(switched=PreviousValues())
        return tuple(done)
