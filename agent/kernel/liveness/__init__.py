"""Find out whether a host answers: ARP and ICMP."""
