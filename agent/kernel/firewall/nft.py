"""Writing with iptables-nft: one transaction per table, through iptables-restore.

python-iptables cannot do this: it speaks to the legacy tables only.
"""

from __future__ import annotations

from agent.kernel.firewall.parse import Ruleset, parse_ruleset
from agent.kernel.firewall.plan import TableEdit, restore_text
from agent.kernel.firewall.variant import Programs, Variant

__all__ = ["NftWriter"]


class NftWriter:
    """Reads and writes the nft variant's tables."""

    variant = Variant.NFT

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def read(self) -> Ruleset:
        """All tables.

        Raises:
            DependencyMissing, FirewallError: They cannot be read whole.
        """
        return parse_ruleset(self._programs.save(self.variant))

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
