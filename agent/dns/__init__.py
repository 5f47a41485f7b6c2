"""The name server of a host, a process of its own: it answers from a snapshot and forwards."""
