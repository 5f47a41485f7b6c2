"""The map as SVG and as a graph: whole, for any number of hosts, with hostile names as text."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from agent.ctl.web import drawing

pytestmark = pytest.mark.unit

HOSTILE = '</text><script>alert(1)</script>"]; own -- evil; \x00\x1b[31m\\" &amp;\u202e'
SPACE = "{http://www.w3.org/2000/svg}"


def peer(number: int, **fields: object) -> dict[str, Any]:
    return {
        "host_name": f"host{number}",
        "subnet": f"10.64.{number}.0/24",
        "node_address": f"192.0.2.{number}",
        "backend": "wireguard",
        "link": "eth0",
        "direct": True,
        "state": "ok",
        **fields,
    }


def document(*peers: dict[str, Any], name: str = "host1") -> dict[str, Any]:
    host = {"name": name, "subnet": "10.64.1.0/24", "uplink": "eth0", "node_address": "192.0.2.1"}
    return {"host": host, "mesh": "10.64.0.0/10", "stale": False, "peers": list(peers)}


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 # made here


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in parsed(svg).iter(f"{SPACE}text")]


@pytest.mark.parametrize("count", [0, 1, 12, 13, 300])
def test_every_peer_is_drawn_within_the_picture(count: int) -> None:
    svg = drawing.svg(document(*(peer(number) for number in range(2, count + 2))))
    root = parsed(svg)
    height = float(root.attrib["viewBox"].split()[3])
    assert {f"host{number}" for number in range(2, count + 2)} <= set(texts(svg))
    assert all(float(each.attrib["cy"]) < height for each in root.iter(f"{SPACE}circle"))
    assert drawing.dot(document(*(peer(n) for n in range(2, count + 2)))).count(" -- ") == count


def test_tunnels_are_dashed_and_states_have_colours() -> None:
    found = document(peer(2), peer(3, link="hm-wg", direct=False, state="broken"))
    svg = drawing.svg(found)
    assert 'class="wire tunnel" stroke="#c02b2b"' in svg
    assert {"eth0, direct, wireguard: 1", "hm-wg, tunnel, wireguard: 1"} <= set(texts(svg))
    assert 'peer1 [style=dashed, color="#c02b2b"]' in drawing.dot(found)


def test_promise_9_an_old_map_says_so() -> None:
    old = {**document(peer(2)), "stale": True, "as_of_s_ago": 53.0}
    assert "etcd unreachable, 53 s old" in texts(drawing.svg(old))


def test_promise_8_hostile_names_are_text_in_svg() -> None:
    svg = drawing.svg(document(peer(2, host_name=HOSTILE), name=HOSTILE))
    assert not list(parsed(svg).iter(f"{SPACE}script"))
    assert any("<script>" in text for text in texts(svg))
    assert not re.search("[\x00\x1b\u202e]", svg)


def test_promise_8_hostile_names_are_text_in_a_graph() -> None:
    dot = drawing.dot(document(peer(2, host_name=HOSTILE), name=HOSTILE))
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", dot)
    assert "evil" not in outside
    assert outside.count(" -- ") == 1
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=dot, text=True, check=True, capture_output=True)
