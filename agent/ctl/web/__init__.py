"""The web page and drawings of the map, for agentctl."""
