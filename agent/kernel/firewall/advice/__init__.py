"""Find rules of other programs that decide about mesh traffic."""
