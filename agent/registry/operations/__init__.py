"""Carry out an operator's changes: reserve a subnet, remove a host, change the config.

Every operation is idempotent, works by transactions that compare first, and needs no agent. With
``dry`` everything is checked and nothing is written.
"""
