"""Who owns which subnet. The only room that speaks to etcd."""
