"""Which of two hosts begins the handshake of WireGuard, and when.

A try that the other host drops is followed by the next one 5 s later (REKEY_TIMEOUT,
https://www.wireguard.com/protocol/), and what is sent meanwhile waits. It is dropped where the
other host does not have this one as a peer yet, and where both begin at once: each then drops the
other's answer. So of two hosts that meet the one with the lower key begins at once, and the other
a moment later, unless they have shaken hands by then.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from agent.errors import KernelError
from agent.kernel.wireguard.tool import WireGuardTool
from agent.model.wireguard import WIREGUARD_LINK as LINK
from agent.model.wireguard import PeerKey, WireGuardPeer

__all__ = ["Handshakes", "peer_words"]

_LATER_S: Final = 0.2
"""More than a way there and back takes; a change of backend takes longer between its steps."""
_ANY_INTERVAL_S: Final = 25
_AT_ONCE: Final = 100
"""Peers in one call of wg: the kernel limits the length of arguments."""


class Handshakes:
    """Those that this host leaves to the other one for a moment.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, tool: WireGuardTool, clock: Callable[[], float] = time.monotonic) -> None:
        self._tool = tool
        self._clock = clock
        self._left: dict[PeerKey, tuple[WireGuardPeer, float]] = {}

    def leave(self, peer: WireGuardPeer) -> None:
        """Let a peer that was just written begin, for a moment."""
        if peer.endpoint is not None and not peer.keepalive_s:  # or it was begun by its interval
            self._left[peer.key] = (peer, self._clock() + _LATER_S)

    def forget(self, key: PeerKey) -> None:
        """Begin none with a peer any more: it is gone, or one was begun."""
        self._left.pop(key, None)

    def begin(self) -> float | None:
        """Begin those that are due, some at a time; return the seconds until the next is, or None.

        One that wg refuses is left to the peer: it is no more than a packet.
        """
        now_s = self._clock()
        ready = (peer for peer, at_s in self._left.values() if at_s <= now_s)
        due = list(islice(ready, _AT_ONCE))
        for peer in due:
            self.forget(peer.key)
        if due:
            with contextlib.suppress(KernelError):
                self._begin(due)
        next_s = min((at_s for _, at_s in self._left.values()), default=None)
        return None if next_s is None else max(0.0, next_s - now_s)

    def _begin(self, peers: Sequence[WireGuardPeer]) -> None:
        """Begin one with each of these that is there and has shaken no hands."""
        state = self._tool.show(LINK)
        there = () if state is None else state.peers
        unshaken = {each.public_key for each in there if not each.handshake_s}
        wanted = (each for each in peers if each.public_key in unshaken)
        words = [word for each in wanted for word in peer_words(each, begins=True)]
        if words:
            self._tool.set(LINK, words)


def peer_words(peer: WireGuardPeer, *, begins: bool) -> Sequence[str]:
    """Return the words that write a peer for wg, and may begin a handshake where it is reachable.

    A device that was made again has no sessions. Its peers send by the old ones for up to 15 s
    (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT), and all of that is lost. An interval that is set where
    there was none has a packet sent at once, so that the session is renewed.
    """
    named = ("peer", peer.public_key)
    wanted = (*named, "persistent-keepalive", str(peer.keepalive_s))
    if peer.endpoint is None:
        return wanted
    if not begins:
        return (*named, "endpoint", str(peer.endpoint), *wanted[2:])
    interval = str(peer.keepalive_s or _ANY_INTERVAL_S)
    first = (*named, "endpoint", str(peer.endpoint), "persistent-keepalive", interval)
    return first if peer.keepalive_s else (*first, *wanted)
