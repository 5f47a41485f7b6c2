"""Check every peer from this host: gather facts, ask all at once, judge the answers."""
