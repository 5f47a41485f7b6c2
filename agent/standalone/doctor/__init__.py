"""`agentctl doctor`: what a join needs, looked at without changing the host."""
