"""Look at the way of a packet: lookups, pings, captures, trials."""
