"""What is told to operators, systemd and metrics."""
