"""Ask the engine's API and follow its events."""
