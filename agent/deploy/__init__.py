"""`hostmesh-deploy`: make a mesh of hosts that ssh reaches, by the playbooks of deploy/ansible."""
