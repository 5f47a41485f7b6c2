"""Find the host's dockerd, check its socket, restart it."""
