"""``agentctl network``: networks that span hosts."""
