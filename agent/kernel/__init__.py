"""Links, routes, sets, firewall: list, apply, watch. The only importer of pyroute2 and iptc."""
