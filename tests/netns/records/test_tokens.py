"""Hosts that join by a token: real agents, and an etcd with TLS and an account for each host."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.ctl.client import AgentClient
from tests.etcd.support.kit import Kit
from tests.netns.mesh.stage import ETCD, ROOT, Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

CLONED = "machine-id-cloned"
_SHORT = "[lease]\nheartbeat_ttl_s = 6\n"


class Controller(Stage):
    """An etcd of deploy/etcd/hosts.sh, whose folder is on etcd's host; hosts without settings."""

    def __init__(self, nodes: int) -> None:
        super().__init__(nodes, _SHORT)
        for node in self.nodes:
            bare(node)
            give_boot_id(node)

    def start_etcd(self) -> None:
        self.kit = Kit(self.folder / "kit")
        self.run("members", f"etcd1={ETCD}")
        self._etcd = self._etcd_host.call(self.kit.member, "etcd1", self.folder / "etcd")
        eventually(lambda: not self._etcd_host.call(self.kit.try_to, "list").returncode, 60)
        self.run("enable")
        self.agentctl("config", "init", "--cidr", "10.64.0.0/10", "--subnet-len", "24")
        self.agentctl("config", "set", "--owners", "required")

    def run(self, *words: str) -> str:
        """Run hosts.sh."""
        return self._etcd_host.call(self.kit.run, *words)

    def agentctl(self, *words: str, fails: int = 0) -> str:
        """Run agentctl on etcd's host as the operator."""
        operator = self.kit.folder / "operator" / "operator.toml"
        command = [sys.executable, "-m", "agent.ctl", "--settings", "/dev/null"]
        done = self._etcd_host.call(
            subprocess.run,
            [*command, "--as-operator", str(operator), *words],
            env=self.kit._environ, cwd=ROOT, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == fails, done.stderr
        return str(done.stdout if not fails else done.stderr)

    def token(self, host: str) -> Path:
        """Make a token."""
        path = self.folder / f"{host}.token"
        folder = ("--folder", str(self.kit.folder))
        self.agentctl("token", "create", "--host", host, *folder, str(path))
        assert path.stat().st_mode & 0o777 == 0o600
        return path

    def states(self) -> dict[str, str]:
        folder = ("--folder", str(self.kit.folder))
        listed = json.loads(self.agentctl("token", "ls", *folder, "-o", "json"))["tokens"]
        return {each["host"]: each["state"] for each in listed}


def give_boot_id(node: Node) -> None:
    """Give it a boot of its own: a clone is known by that."""
    path = node.folder / "boot-id"
    path.write_text(f"{uuid.uuid4()}\n")
    node.binds[str(path)] = "/proc/sys/kernel/random/boot_id"


def bare(node: Node) -> None:
    """Remove a host's part in the mesh; agent.toml keeps the test's settings."""
    for name in ("state", "run"):
        shutil.rmtree(node.folder / name, ignore_errors=True)
    for path in node.folder.glob("etcd*"):
        path.unlink()
    text = node.settings.read_text()
    kept = [line for line in text.splitlines() if line.partition(" ")[0] not in
            {"endpoints", "ca_file", "cert_file", "key_file", "id"}]  # fmt: skip
    node.settings.write_text("\n".join(kept) + "\n")


def join(node: Node, token: Path, *words: str) -> str:
    """Let the host join; returns the token's id."""
    done = node.agent("join", *words, str(token))
    assert done.returncode == 0, done.stderr
    found = str(json.loads(token.read_text())["id"])
    assert node.agent("--host-id").stdout.strip() == found
    return found


def status(node: Node) -> dict[str, Any]:
    """Ask the agent as agentctl does, without a process for each question."""
    return AgentClient(node.socket, 10).get("/v1/status")


def conditions(node: Node) -> dict[str, str]:
    return {each["name"]: each["hint"] for each in status(node)["conditions"]}


def joined(*nodes: Node) -> bool:
    """Whether each holds a subnet and routes to all others."""
    return all(
        each["subnet"] and (each["routes"]["installed"] or 0) >= len(nodes)
        for each in map(status, nodes)
    )


def subnet_of(node: Node) -> str:
    return str(status(node)["subnet"] or "")


@pytest.fixture(scope="module")
def controller() -> Iterator[Controller]:
    stage = Controller(3)
    try:
        yield stage
    finally:
        stage.close()


def test_promise_1_two_hosts_join_by_tokens_and_a_third_with_a_used_one_is_a_clone(
    controller: Controller,
) -> None:
    first, second, clone = controller.nodes
    tokens = {node.name: controller.token(node.name) for node in (first, second)}
    assert controller.states() == {"node1": "unused", "node2": "unused"}
    ids = {}
    for node in (first, second):
        ids[node.name] = join(node, tokens[node.name])
        node.start()
    eventually(lambda: joined(first, second), 60)
    leases = first.document("leases")["leases"]
    assert {each["host_name"]: each["host_id"] for each in leases} == ids
    assert controller.states() == {"node1": "used", "node2": "used"}
    assert "token" not in controller.run("list").partition("\n")[2]
    said = controller.agentctl(
        "token", "revoke", "node2", "--folder", str(controller.kit.folder), fails=24
    )
    assert "a host uses it" in said
    subnet = subnet_of(second)

    join(clone, tokens["node2"])
    clone.start()
    eventually(lambda: CLONED in conditions(clone) and CLONED in conditions(second), 60)
    assert "hostmesh-agent join" in conditions(clone)[CLONED]
    assert (subnet_of(clone), subnet_of(second)) == ("", subnet)
    assert joined(first, second)

    # As its hint says: a token of its own.
    clone.stop()
    third = controller.token("node3")
    refused = clone.agent("join", str(third))
    assert refused.returncode == 24
    assert "agentctl leave" in refused.stderr
    join(clone, third, "--replace")
    clone.start()
    eventually(lambda: joined(*controller.nodes), 60)
    eventually(lambda: CLONED not in conditions(second), 60)
    assert subnet_of(second) == subnet


def test_promise_2_the_id_and_the_subnet_outlast_a_leave_a_lost_state_and_a_new_disk(
    controller: Controller,
) -> None:
    node = controller.nodes[0]
    subnet, found = subnet_of(node), node.agent("--host-id").stdout
    assert node.ctl("leave").returncode == 0
    assert node.agent("--host-id").stdout == found
    assert node.ctl("join").returncode == 0
    eventually(lambda: subnet_of(node) == subnet, 60)

    node.stop()
    shutil.rmtree(node.folder / "state")
    node.start()
    eventually(lambda: subnet_of(node) == subnet, 60)

    node.stop()
    bare(node)
    (node.folder / "machine-id").write_text(f"{99:032x}\n")
    join(node, controller.token("node1"))
    node.start()
    eventually(lambda: subnet_of(node) == subnet, 60)
    assert node.agent("--host-id").stdout == found


def test_promise_11_a_token_that_was_revoked_opens_nothing(controller: Controller) -> None:
    token = controller.token("node9")
    assert "ok, token unused until 20" in controller.run("list")
    (controller.kit.folder / "hosts/node9/token").write_text("2001-01-01T00:00:00Z\n")
    assert "ok, token expired 2001-01-01T00:00:00Z" in controller.run("list")
    assert controller.states()["node9"] == "expired"
    folder = ("--folder", str(controller.kit.folder))
    controller.agentctl("token", "revoke", "node9", *folder)
    assert "node9" not in controller.states()
    assert "has no token" in controller.agentctl("token", "revoke", "node9", *folder, fails=2)
    thief = controller.kit.folder / "thief"
    thief.mkdir()
    for key, name in (("cert_file", "etcd.crt"), ("key_file", "etcd.key")):
        (thief / name).write_text(json.loads(token.read_text())["files"][key])
    asked = controller._etcd_host.call(controller.kit.etcdctl, "get", "/hostmesh/", who="thief")
    assert "permission denied" in asked.stderr or "user name not found" in asked.stderr, asked


def test_secrets_are_on_no_command_line_and_in_no_log(controller: Controller) -> None:
    secrets = [each.read_text() for each in controller.kit.folder.glob("hosts/*/etcd.key")]
    lines = [line for text in secrets for line in text.splitlines() if "-----" not in line]
    assert lines
    said = [controller.kit.calls(), *(node.log.read_text() for node in controller.nodes)]
    assert not any(line in text for line in lines for text in said)


def test_promise_1_a_token_without_an_account_is_for_one_host_too() -> None:
    stage = Stage(3, _SHORT)
    try:
        first, second, clone = stage.nodes
        stage.create_mesh()
        first.start()
        path = stage.folder / "token"
        assert (
            first.ctl("token", "create", "--host", "b", "--without-account", str(path)).returncode
            == 0
        )
        assert json.loads(path.read_text())["files"] == {}
        for node in (second, clone):
            bare(node)
            give_boot_id(node)
            join(node, path)
        second.start()
        eventually(lambda: joined(first, second), 60)
        clone.start()
        eventually(lambda: CLONED in conditions(clone) and CLONED in conditions(second), 60)
        assert subnet_of(clone) == ""
        assert joined(first, second)
    finally:
        stage.close()
