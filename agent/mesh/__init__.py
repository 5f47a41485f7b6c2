"""The pure core: world -> desired state -> plan. No I/O, no clock, no threads."""
