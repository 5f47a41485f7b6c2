"""Which iptables the running dockerd writes with: its own PATH in its own root."""

from pathlib import Path

import pytest

from agent.kernel.firewall.variant.dockerd import variant_of
from agent.kernel.firewall.variant.iptables import Variant

pytestmark = pytest.mark.unit


class Proc:
    """A /proc with one process, whose root is a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "proc"
        self.root = folder / "root"
        (self.folder / "7").mkdir(parents=True)
        self.root.mkdir()
        (self.folder / "7/root").symlink_to(self.root)
        self.environ("LANG=C", "PATH=/usr/local/sbin:/usr/sbin:/usr/bin")

    def environ(self, *entries: str) -> None:
        (self.folder / "7/environ").write_bytes("\0".join([*entries, ""]).encode())

    def program(self, name: str) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o755)

    def link(self, name: str, to: str) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(to)

    def variant(self) -> Variant | None:
        return variant_of(7, proc=self.folder)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """Debian's alternatives: absolute links, which stay inside the process's root."""
    made = Proc(tmp_path)
    made.program("/usr/sbin/xtables-nft-multi")
    made.program("/usr/sbin/xtables-legacy-multi")
    for variant in ("nft", "legacy"):
        made.link(f"/usr/sbin/iptables-{variant}", f"xtables-{variant}-multi")
    made.link("/usr/sbin/iptables", "/etc/alternatives/iptables")
    made.link("/etc/alternatives/iptables", "/usr/sbin/iptables-nft")
    return made


def test_alternatives_are_followed_and_a_change_is_seen(proc: Proc) -> None:
    assert proc.variant() is Variant.NFT
    proc.link("/etc/alternatives/iptables", "../../usr/sbin/iptables-legacy")
    assert proc.variant() is Variant.LEGACY


def test_the_path_that_dockerd_was_started_with_counts(proc: Proc) -> None:
    proc.link("/opt/old/iptables", "/usr/sbin/xtables-legacy-multi")
    proc.environ("PATH=/opt/none:/opt/old:/usr/sbin")
    assert proc.variant() is Variant.LEGACY
    proc.environ("HOME=/")
    assert proc.variant() is Variant.NFT


def test_the_programs_of_before_1_8_are_legacy(proc: Proc) -> None:
    proc.program("/usr/sbin/xtables-multi")
    proc.link("/usr/sbin/iptables", "xtables-multi")
    assert proc.variant() is Variant.LEGACY


@pytest.mark.parametrize("to", ["/usr/sbin/wrapper", "iptables", "/usr/sbin/gone"])
def test_an_unknown_variant_is_not_guessed(proc: Proc, to: str) -> None:
    proc.program("/usr/sbin/wrapper")
    proc.link("/usr/sbin/iptables", to)
    assert proc.variant() is None


def test_a_process_that_ended_is_none(proc: Proc) -> None:
    assert variant_of(8, proc=proc.folder) is None
