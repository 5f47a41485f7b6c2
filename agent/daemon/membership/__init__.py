"""Joining, leaving, and where etcd is."""
