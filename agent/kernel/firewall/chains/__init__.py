"""The agent's chains, one module each: its name, and its rules for what is desired.

Pure: equal input, equal text. Each rule carries its purpose as a comment. The number of rules
depends on the host's own Docker networks, never on the number of peers and containers: those are
members of sets.

Mesh traffic is recognised by the interface it came in by as well as by its addresses. Addresses
alone let a container of one Docker network reach an unpublished port of another one on the same
host, which Docker had blocked.

A new chain is a module with ``NAME`` and ``render``, and a line in :mod:`.declared`.
"""
