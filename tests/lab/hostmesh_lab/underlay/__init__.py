"""The LAN of a lab as values (topology) and in the kernel (net)."""
