"""Write with iptables-nft, one transaction per table, through iptables-restore.

python-iptables cannot do this: it speaks to the legacy tables only.
"""

from __future__ import annotations

import time
from typing import Final

from agent.kernel.firewall.advice.nft_chains import generation
from agent.kernel.firewall.edits import TableEdit, restore_text
from agent.kernel.firewall.parse import Ruleset, parse_ruleset
from agent.kernel.firewall.variant.iptables import Iptables, Variant

__all__ = ["NftWriter"]

_TRUSTED_S: Final = 60.0


class NftWriter:
    """Reads and writes the nft variant's tables."""

    variant = Variant.NFT

    def __init__(self, programs: Iptables) -> None:
        self._programs = programs
        self._last: tuple[int, float, Ruleset] | None = None  # its generation, and until when

    def read(self) -> Ruleset:
        """Return all tables.

        They are not read again while the kernel counts no transaction. Once a minute they are:
        the name of a set in a rule changes without one, by `ipset swap`.

        Raises:
            DependencyMissing, FirewallError: They cannot be read whole.
        """
        number, now_s = generation(), time.monotonic()
        if self._last is not None and number == self._last[0] and now_s < self._last[1]:
            return self._last[2]
        self._last = None
        ruleset = parse_ruleset(self._programs.save(self.variant))
        # A transaction while they were read has raised the number, so that the next look reads.
        self._last = None if number is None else (number, now_s + _TRUSTED_S, ruleset)
        return ruleset

    def write(self, edits: tuple[TableEdit, ...]) -> None:
        """Commit ``edits``, each table whole or not at all.

        Raises:
            FirewallError: The kernel or the program refused; what follows was not written.
        """
        if edits:
            self._programs.restore(self.variant, restore_text(edits))

    def set_policy(self, policy: str) -> None:
        """Set FORWARD's policy in the filter table; no rule changes.

        Raises:
            FirewallError: Refused.
        """
        text = f"*filter\n:FORWARD {policy} [0:0]\nCOMMIT\n"
        self._programs.restore(self.variant, text)
