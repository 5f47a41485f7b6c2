"""Claim a subnet, and give it back: transactions, choice, turns, clones."""
