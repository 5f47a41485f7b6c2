"""Ask the engine's API, and hear of its events."""
