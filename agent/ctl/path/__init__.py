"""Test and explain the way between two containers."""
