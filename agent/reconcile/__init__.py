"""Desired against actual, for every kind of kernel object. Generic and pure.

:mod:`.objects` has the vocabulary: operations, results, the table protocol. :mod:`.tracker`
remembers where desired and actual differ, :mod:`.plan` turns differences into operations,
:mod:`.pacing` spaces retries and damps fights, :mod:`.reconciler` joins them to a table.
"""
