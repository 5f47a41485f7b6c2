"""Speak to etcd: connections, endpoints, users, calls, watches. The only importer of etcd3."""
