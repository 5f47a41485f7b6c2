"""The passes over the kernel."""
