"""Edit daemon.json: spans, journal, atomic files, checks, what conflicts."""
