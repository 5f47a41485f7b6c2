"""The steps of `make demo`; `run` puts them in order."""
