"""Test and explain the path between two containers."""
