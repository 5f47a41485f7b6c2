"""Make and remove the Docker networks that records of mesh networks ask for."""
