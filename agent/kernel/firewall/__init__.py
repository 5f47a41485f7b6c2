"""The host's iptables rules: what mesh traffic needs, beside Docker's and the operator's."""

from agent.kernel.firewall.host import Firewall, FirewallReport, HostFirewall, open_firewall

__all__ = ["Firewall", "FirewallReport", "HostFirewall", "open_firewall"]
