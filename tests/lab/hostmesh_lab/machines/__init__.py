"""The machines of a lab: hosts, booted hosts, etcd members, and tools that run on them."""
