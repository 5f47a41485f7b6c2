"""agentctl, the operator's command."""
