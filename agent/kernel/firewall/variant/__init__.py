"""Choose iptables' variant, the one that dockerd writes with."""
