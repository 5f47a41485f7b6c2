"""The host's iptables rules: what mesh traffic needs, beside Docker's and the operator's."""

from agent.kernel.firewall.firewall import Firewall, open_firewall
from agent.kernel.firewall.report import FirewallReport
from agent.kernel.firewall.rule_monitor import CHECK_EVERY_S, RuleMonitor, RulesChanged

__all__ = [
    "CHECK_EVERY_S",
    "Firewall",
    "FirewallReport",
    "RuleMonitor",
    "RulesChanged",
    "open_firewall",
]
