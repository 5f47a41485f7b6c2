"""What the control socket and the metrics answer."""
