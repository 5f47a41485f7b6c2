"""Report within a moment that another program changed iptables-nft's rules.

nftables announces every committed transaction with a message that names the process
(NFT_MSG_NEWGEN, linux/netfilter/nf_tables.h). Legacy rules and ipsets announce nothing: they
need a timer, :data:`CHECK_EVERY_S`.

An event only asks for a look. A look that finds nothing changes nothing, so leaving out the agent's
own transactions only saves work. It fails inside a PID namespace, where the kernel names processes
by other numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from agent.errors import FirewallError, KernelError
from agent.kernel.listener import Listener, Listening
from agent.kernel.netlink import NetlinkSocket, attributes, messages
from agent.kernel.netlink.netfilter import BODY_AT, NETFILTER
from agent.threads import Poller

__all__ = ["CHECK_EVERY_S", "RuleMonitor", "RulesChanged", "changes_in"]

CHECK_EVERY_S: Final = 5.0
"""How often rules and sets are checked without an event."""

_GROUP: Final = 1 << (7 - 1)
"""NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h, as a bit."""
_NEWGEN: Final = 10 << 8 | 15
"""NFNL_SUBSYS_NFTABLES and NFT_MSG_NEWGEN."""
_GEN_PID: Final = 2
_GEN_NAME: Final = 3
_COALESCE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """Another program changed rules since the last event.

    Attributes:
        by: "name (pid)" of each program, sorted; empty when messages were lost.
    """

    by: tuple[str, ...] = ()


class RuleMonitor:
    """Watches the network namespace of the thread that calls :meth:`start`.

    Args:
        on_event: Called on the poller's thread; must be quick and must not raise.
        own_pids: The agent's processes, whose transactions are not reported.
        poller: Shared with other sources; None: one of its own.
    """

    def __init__(
        self,
        on_event: Callable[[RulesChanged], None],
        *,
        own_pids: Callable[[], frozenset[int]] = frozenset,
        poller: Poller | None = None,
    ) -> None:
        self._own_pids = own_pids
        self._listener = Listener(
            Listening(
                name="firewall-monitor",
                open=lambda: NetlinkSocket(groups=_GROUP, family=NETFILTER),
                drain=self._drain,
                lost=RulesChanged(),
                on_event=on_event,
                coalesce_s=_COALESCE_S,
            ),
            poller,
        )

    def start(self) -> None:
        """Subscribe, then listen.

        Raises:
            FirewallError: The kernel has no nf_tables to listen to.
        """
        try:
            self._listener.start()
        except KernelError as error:
            raise FirewallError(f"rules cannot be watched: {error.message}") from error

    def stop(self) -> None:
        """Listen no more; returns within two seconds. Harmless when it does not run."""
        self._listener.stop()

    def _drain(self, current: NetlinkSocket) -> RulesChanged | None:
        """Return the transactions announced by now; None when only the agent wrote.

        Raises:
            OSError: Messages were lost (ENOBUFS): the socket stays in error.
        """
        found: set[tuple[int, str]] = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                found.update(changes_in(current.receive_now()))
        own = self._own_pids()  # afterwards: each process that wrote by now is among them
        by = {f"{name} ({pid})" for pid, name in found if pid not in own}
        return RulesChanged(tuple(sorted(by))) if by else None


def changes_in(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield pid and program of each transaction in one datagram; nonsense ends it."""
    for kind, _, _, _, payload in messages(data):
        if kind == _NEWGEN and len(payload) >= BODY_AT:
            said = dict(attributes(payload, BODY_AT))
            pid = int.from_bytes(said.get(_GEN_PID, b""))
            yield pid, said.get(_GEN_NAME, b"unknown").rstrip(b"\0").decode(errors="replace")
