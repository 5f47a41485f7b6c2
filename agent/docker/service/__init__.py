"""dockerd as a program and a service: find it, check its file, restart it, roll back."""
