"""Another program on the servers' port is not mistaken for a server that does not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.daemon.names.servers import look_at_servers

pytestmark = pytest.mark.unit

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n"


@pytest.mark.parametrize(
    ("table", "local", "taken"),
    [
        ("udp", "00000000:0035", (True, True)),
        ("udp6", "0" * 32 + ":0035", (True, True)),
        ("udp", "3514FEA9:0035", (False, False)),
        ("udp", "3514FEA9:1535", (False, False)),
        ("udp", "3500007F:0035", (False, False)),
    ],
)
def test_the_port_is_taken_by_a_socket_at_every_address(
    tmp_path: Path, table: str, local: str, taken: tuple[bool, bool]
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / table).write_text(f"{HEAD}  1: {local} 00000000:0000 07 0 0 0\n")
    found = look_at_servers(tmp_path / "no", tmp_path)
    assert tuple(each.taken for each in found) == taken
