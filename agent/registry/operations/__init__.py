"""What an operator does to the mesh: reserve a subnet, remove a host, change the config.

Every operation is idempotent, works by transactions that compare first, and needs no agent. With
``dry`` everything is checked and nothing is written.
"""
