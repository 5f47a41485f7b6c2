"""Keep the name servers' snapshot as the mesh is, and say how the servers are."""
