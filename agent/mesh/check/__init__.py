"""Check every peer: the questions, the verdicts and the result. Pure."""
