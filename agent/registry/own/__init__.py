"""Keep this host's own records: lease, heartbeat, memory, former lease."""
