"""Ask the host's own name servers for all that is not the mesh's."""
