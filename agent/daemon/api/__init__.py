"""The control socket, the metrics listener and the documents that both send."""
