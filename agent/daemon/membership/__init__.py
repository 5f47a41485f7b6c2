"""Joining and leaving the mesh, and the endpoints of etcd."""
