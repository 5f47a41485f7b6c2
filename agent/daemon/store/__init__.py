"""What outlasts the process on disk."""
