"""Verbs that look for faults."""
