"""Give the subnet to Docker, in one of two ways, and take it back."""
