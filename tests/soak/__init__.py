"""A seeded random walk over a lab of real hosts, under pings between all pairs of containers."""
