"""Programs that run inside a machine of the lab; they import the standard library only."""
