"""The verbs of `agentctl config`: create the mesh, show it, change it."""
