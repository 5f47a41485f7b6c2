"""Checks of all peers: start one now and then, keep the last, publish its summary."""
