"""Hold what the mesh's hosts agree on in etcd: who owns which subnet."""
