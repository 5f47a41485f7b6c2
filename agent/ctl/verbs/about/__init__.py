"""Verbs about agentctl itself."""
