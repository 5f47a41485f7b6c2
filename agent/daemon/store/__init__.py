"""Files that outlast the process, and the host's lock."""
