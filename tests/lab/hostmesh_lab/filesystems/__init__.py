"""Root filesystems, packages and images that machines of a lab mount or load; each cached."""
