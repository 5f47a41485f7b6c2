"""Hostmesh: one routed container network for plain Docker hosts."""

__version__ = "0.1.1"
