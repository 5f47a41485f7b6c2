"""Conditions, events, counters, and systemd's notifications."""
