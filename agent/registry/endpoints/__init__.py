"""The running containers of all hosts, apart from the other records of the mesh."""
