"""Write the legacy tables with python-iptables, one atomic replace per table.

What the library needs to be safe in a long-running process (measured, see
docs/dependencies.md): one thread, autocommit off, the xtables lock held from refresh to
commit. Without the lock it lost other programs' rules while it reported success. It is
imported only when a legacy table is written: it costs memory, and opening a table makes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from agent.errors import DependencyMissing, FirewallError
from agent.kernel.firewall.chains.rule import OURS
from agent.kernel.firewall.edits import JumpEdit, TableEdit
from agent.kernel.firewall.parse import Clause, Ruleset, parse_rule, parse_ruleset
from agent.kernel.firewall.variant.iptables import Iptables, Variant
from agent.model.family import IPV4, IPV6

__all__ = ["LegacyWriter"]

_LOCK_PATH: Final = "/run/xtables.lock"
"""Lock that iptables(8) -w waits for, unless XTABLES_LOCKFILE names another."""
_LOCK_WAIT_S: Final = 5.0
_LOCK_POLL_S: Final = 0.02
_THREAD: Final = threading.Lock()
"""The library keeps tables in globals, so all use in this process is serialised."""

_BASE: Final = {"-s": "src", "-d": "dst", "-i": "in_interface", "-o": "out_interface",
                "-p": "protocol"}  # fmt: skip
_PROTOCOLS: Final = {IPV6.icmp: "icmpv6"}
"""The library's names where they are not iptables'."""


class LegacyWriter:
    """Reads the legacy tables with iptables-save and writes them with python-iptables."""

    variant = Variant.LEGACY

    def __init__(self, programs: Iptables, *, lock_path: str | None = None) -> None:
        self._programs = programs
        self._lock_path = lock_path or os.environ.get("XTABLES_LOCKFILE", _LOCK_PATH)

    def read(self) -> Ruleset:
        """Return all tables that exist; no table is made.

        Raises:
            DependencyMissing, FirewallError: They cannot be read whole.
        """
        return parse_ruleset(self._programs.save(self.variant))

    def write(self, edits: tuple[TableEdit, ...]) -> None:
        """Commit ``edits``, each table whole or not at all.

        Raises:
            DependencyMissing: python-iptables or its libraries are not there.
            FirewallError: The kernel or the library refused, or the lock was not to be had.
        """
        for edit in edits:
            self._commit(edit.table, partial(_apply, edit))

    def set_policy(self, policy: str) -> None:
        """Set FORWARD's policy in the filter table; no rule changes.

        Raises:
            DependencyMissing, FirewallError: As :meth:`write`.
        """
        self._commit("filter", partial(_set_policy, policy))

    def _commit(self, name: str, change: Callable[[Any, Any], None]) -> None:
        with _THREAD:
            iptc = _library()
            kind = {IPV4: iptc.Table, IPV6: iptc.Table6}[self._programs.family]
            with _xtables_lock(self._lock_path):
                try:
                    table = kind(name, autocommit=False)
                    table.refresh()
                    change(iptc, table)
                    table.commit()
                except (iptc.IPTCError, iptc.XTablesError, AttributeError, ValueError) as error:
                    raise FirewallError(f"legacy table {name} was not changed: {error}") from error
                finally:
                    _forget(kind, name)


def _library() -> Any:  # noqa: ANN401  (the library has no annotations)
    """Return python-iptables, imported without setuptools.

    It asks distutils for a folder. setuptools answers for distutils in its stead, which
    costs 16 MB. Without distutils the library uses sysconfig.
    """
    loaded = sys.modules.get("iptc")
    if loaded is not None:
        return loaded
    hidden = sys.modules.pop("distutils", None)
    sys.modules["distutils"] = None  # type: ignore[assignment]
    try:
        import iptc  # noqa: PLC0415  (only where legacy tables are written)
    except ImportError as error:
        raise DependencyMissing(
            f"python-iptables cannot be loaded: {error}",
            hint="it needs libip4tc and libxtables, which the system's iptables brings",
        ) from error
    finally:
        del sys.modules["distutils"]
        if hidden is not None:
            sys.modules["distutils"] = hidden
    _follow_entry_size(iptc)
    return iptc


def _follow_entry_size(iptc: Any) -> None:  # noqa: ANN401
    """Let the library find every option of an extension, not only the first one.

    It steps through libxtables' struct xt_option_entry by the size of 1.8.10. Since 1.8.11 the
    struct has a field more at its end, which is 0 in addrtype's options: where the library looks
    for the name of the second one, it finds none.
    """
    options = iptc.Match(iptc.Rule(), "addrtype")._module.x6_options  # noqa: SLF001
    kind = type(options.contents)
    size = ctypes.sizeof(kind)
    second = ctypes.c_void_p.from_address(ctypes.addressof(options.contents) + size)
    step = size if second.value else size + ctypes.alignment(kind)

    def look_up(_self: object, entries: Any, name: bytes) -> Any:  # noqa: ANN401
        at = ctypes.addressof(entries.contents)
        while (entry := kind.from_address(at)).name:
            if entry.name == name:
                return entry
            at += step
        return None

    iptc.xtables.xtables._option_lookup = look_up  # noqa: SLF001


def _forget(kind: Any, name: str) -> None:  # noqa: ANN401
    """Close the table, so that nothing uncommitted and no stale view is kept."""
    table = kind._cache.pop(name, None)  # noqa: SLF001  (it offers no other way)
    if table is not None:
        table.close()


@contextlib.contextmanager
def _xtables_lock(path: str) -> Iterator[None]:
    """Hold the lock that every iptables program takes before it writes.

    Raises:
        FirewallError: Another program held it for 5 s, or it cannot be opened.
    """
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FirewallError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise FirewallError(
                        f"{path} was held by another program for {_LOCK_WAIT_S:g} s",
                        hint="look for an iptables that hangs",
                    ) from error
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(handle)


def _set_policy(policy: str, _iptc: Any, table: Any) -> None:  # noqa: ANN401
    table.set_policy("FORWARD", policy)


def _apply(edit: TableEdit, iptc: Any, table: Any) -> None:  # noqa: ANN401
    for chain in (*edit.fill, *edit.drop):
        if table.is_chain(chain):
            table.flush_entries(chain)
        else:
            table.create_chain(chain)
    for chain, rules in edit.fill.items():
        for body in rules:
            iptc.Chain(table, chain).append_rule(_rule(iptc, table, body))
    for jump in edit.jumps:
        _apply_jump(iptc, table, jump)
    for chain in edit.drop:
        table.delete_chain(chain)


def _apply_jump(iptc: Any, table: Any, jump: JumpEdit) -> None:  # noqa: ANN401
    """Delete every own jump, looked up under the lock, and insert the new one."""
    chain = iptc.Chain(table, jump.chain)
    while (entry := _jump_of_ours(table, jump.chain)) is not None:
        chain.delete_rule(_new_rule(iptc, table, entry, chain))
    if jump.insert_at is not None:
        chain.insert_rule(_rule(iptc, table, jump.body), jump.insert_at)


def _jump_of_ours(table: Any, chain: str) -> Any:  # noqa: ANN401
    """Return the first entry that leads into a chain of the agent's, or None.

    Foreign rules are not decoded: they may use extensions the library does not know.
    """
    entry = table.first_rule(chain)
    while entry:
        target = table.get_target(entry)
        if target and target.decode(errors="replace").startswith(OURS):
            return entry
        entry = table.next_rule(entry)
    return None


def _rule(iptc: Any, table: Any, body: str) -> Any:  # noqa: ANN401
    """Return one of the agent's rules in the library's form."""
    spec = parse_rule(body)
    rule = _new_rule(iptc, table, None, iptc.Chain(table, "FORWARD"))
    for clause in spec.clauses:
        if not clause.module:
            named = clause.values[0]
            value = ("!" if clause.negated else "") + _PROTOCOLS.get(named, named)
            setattr(rule, _BASE[clause.option], value)
    for clause in spec.clauses:
        if clause.module:
            _add_match(rule, clause)
    target = rule.create_target(spec.target)
    for option in spec.options:
        target.set_parameter(option.removeprefix("--"), "")
    rule.target = target
    return rule


def _new_rule(iptc: Any, table: Any, entry: Any, chain: Any) -> Any:  # noqa: ANN401
    kind = iptc.Rule6 if isinstance(table, iptc.Table6) else iptc.Rule
    return kind(entry, chain)


def _add_match(rule: Any, clause: Clause) -> None:  # noqa: ANN401
    match = rule.create_match(clause.module)
    name = clause.option.removeprefix("--")
    if clause.option == "--ctstate":
        value: str | list[str] = ("!" if clause.negated else "") + ",".join(clause.values)
    else:
        value = [*(["!"] if clause.negated else []), *clause.values]
    match.set_parameter(name, value)
