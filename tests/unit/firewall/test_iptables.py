"""Which iptables a host has, and what becomes of a program that fails."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent import programs as programs_module
from agent.errors import DependencyMissing, FirewallError, NotRoot
from agent.kernel.firewall.variant import iptables as variant_module
from agent.kernel.firewall.variant.iptables import Iptables, Variant

pytestmark = pytest.mark.unit

Put = Callable[[str, str], None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Write a program onto the only folder that is looked in."""
    monkeypatch.setattr(programs_module, "_SBIN", ())

    def write(name: str, body: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    return write


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("iptables v1.8.9 (nf_tables)", Variant.NFT),
        ("iptables v1.8.10 (legacy)", Variant.LEGACY),
        ("iptables v1.6.1", Variant.LEGACY),
    ],
)
def test_the_variant_is_what_iptables_says(
    put: Put, tmp_path: Path, said: str, expected: Variant
) -> None:
    put("iptables", f"echo '{said}'")
    assert Iptables(str(tmp_path)).default_variant() is expected


@pytest.mark.usefixtures("put")
def test_a_host_without_iptables_gets_a_hint_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DependencyMissing) as caught:
        Iptables(str(tmp_path)).default_variant()
    assert "install iptables" in caught.value.hint
    assert caught.value.exit_code == 12


def test_nonsense_for_a_version_is_an_error(put: Put, tmp_path: Path) -> None:
    put("iptables", "echo hello")
    with pytest.raises(FirewallError, match="hello"):
        Iptables(str(tmp_path)).default_variant()


def test_a_broken_iptables_is_no_reason_to_do_without_the_named_programs(
    put: Put, tmp_path: Path
) -> None:
    put("iptables", "exit 1")
    put("iptables-nft-save", "echo saved")
    programs = Iptables(str(tmp_path))
    assert programs.has(Variant.NFT)
    assert not programs.has(Variant.LEGACY)


def test_plain_names_serve_where_a_host_has_one_variant_only(put: Put, tmp_path: Path) -> None:
    put("iptables", "echo 'iptables v1.8.9 (nf_tables)'")
    put("iptables-save", "echo saved")
    programs = Iptables(str(tmp_path))
    assert programs.has(Variant.NFT)
    assert not programs.has(Variant.LEGACY)
    assert programs.save(Variant.NFT) == "saved\n"


def test_a_programs_last_words_are_quoted(put: Put, tmp_path: Path) -> None:
    put("iptables-nft-restore", "echo 'line 7 failed' >&2; exit 2")
    with pytest.raises(FirewallError, match="line 7 failed"):
        Iptables(str(tmp_path)).restore(Variant.NFT, "")


def test_a_program_that_needs_root_says_so(put: Put, tmp_path: Path) -> None:
    put("iptables-nft-save", "echo 'Permission denied (you must be root)' >&2; exit 4")
    with pytest.raises(NotRoot):
        Iptables(str(tmp_path)).save(Variant.NFT)


def test_a_program_that_hangs_is_ended(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 10: a subprocess has a timeout."""
    monkeypatch.setattr(variant_module, "_TIMEOUT_S", 0.2)
    put("iptables-nft-save", "exec /bin/sleep 30")
    with pytest.raises(FirewallError, match="did not end"):
        Iptables(str(tmp_path)).save(Variant.NFT)
