"""Drive WireGuard by wg(8): the kernel's device or wireguard-go, its key, peers and ranges."""
