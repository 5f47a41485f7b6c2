"""agentctl against real agents: while they run, while one does not, while etcd does not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.netns.mesh.stage import ROOT, Node, Stage
from tests.unit.ctl.schemas import check
from tests.waiting import eventually

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(2).running() as made:
        yield made


@pytest.fixture
def node(stage: Stage) -> Node:
    return stage.nodes[0]


def leases_in_copy(node: Node) -> int:
    """How many leases the host's own copy has, 0 without a copy."""
    path = node.folder / "state/copy.json"
    if not path.exists():
        return 0
    return len(json.loads(json.loads(path.read_text())["body"])["view"]["leases"])


@pytest.fixture
def agent_down(stage: Stage, node: Node) -> Iterator[Node]:
    eventually(lambda: leases_in_copy(node) == len(stage.nodes), 20)
    node.stop(signal.SIGKILL)
    yield node
    node.start()
    eventually(node.subnet, 20)


def test_every_document_is_what_its_schema_says(node: Node) -> None:
    for verb in ("status", "leases", "routes", "diff", "version"):
        check(verb, node.document(verb))
    check("firewall", node.document("firewall", "show"))


def test_curl_is_a_client_too(node: Node) -> None:
    def curl(path: str, *more: str) -> tuple[int, object]:
        command = ["curl", "-s", "-w", "\n%{http_code}", "--unix-socket", str(node.socket)]
        done = subprocess.run(
            [*command, f"http://localhost{path}", *more], check=True, capture_output=True, text=True
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)

    status, document = curl("/v1/status")
    check("status", document)
    assert status == 200
    status, document = curl("/v1/docker")
    check("docker", document)
    assert status == 200
    status, document = curl("/healthz")
    check("health", document)
    assert status == 200
    status, document = curl("/readyz")
    check("ready", document)
    assert status == 503  # there is no Docker here, and the reason says so
    assert "Docker" in str(document)
    status, document = curl("/v1/stats")
    check("error", document)
    assert status == 404
    status, document = curl("/v1/join", "-d", "{}")
    check("done", document)


def test_what_happened_is_told_counted_and_kept(stage: Stage, node: Node) -> None:
    """Promise 9: drift that was put right, a kill -9 and the next start are all there."""
    other = stage.nodes[1]
    before = node.document("events")["events"]
    kinds = [each["kind"] for each in before]
    assert {"agent-started", "subnet-held"} <= set(kinds)
    subnet = other.subnet()
    node.host.ip(f"route del {subnet} proto 140")
    eventually(lambda: subnet in node.host.ip("route show proto 140"), 10)

    def repaired() -> list[str]:
        document = node.document("events")
        check("events", document)
        return [e["text"] for e in document["events"] if e["kind"] == "route-repaired"]

    assert eventually(repaired, 10) == [
        f"{subnet} via 192.0.2.2 dev eth0 proto 140 was missing and was put right"
    ]
    assert 'hostmesh_drift_repairs_total{kind="route-missing"} 1.0' in metrics(node)
    repairs = node.document("status")["repairs"]
    assert repairs["count"] == 1
    assert repairs["last"] == repaired()[0]
    assert 0 <= repairs["last_s_ago"] < 60
    assert "repairs 1, the last " in node.ctl("status").stdout
    following = node.ctl("events", "--follow", "--since", "1ms", "--timeout", "300ms")
    assert (following.returncode, following.stdout) == (0, "")
    node.stop(signal.SIGKILL)
    kept = node.ctl("events")
    assert kept.returncode == 0
    assert "this host's files instead" in kept.stderr
    assert "was put right" in kept.stdout
    assert node.ctl("events", user=65534).returncode in (11, 26)
    node.start()
    eventually(node.subnet, 20)
    starts = [e for e in node.document("events")["events"] if e["kind"] == "agent-started"]
    assert len(starts) == kinds.count("agent-started") + 1


def metrics(node: Node) -> str:
    command = ["curl", "-s", "--unix-socket", str(node.socket), "http://localhost/metrics"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_metrics_are_prometheus_text(node: Node) -> None:
    text = metrics(node)
    assert 'hostmesh_peers{state="alive"} 1.0' in text
    assert 'hostmesh_routes{state="installed"} 2.0' in text
    assert "hostmesh_ready 0.0" in text


def test_ping_follows_the_way_to_a_peer(stage: Stage, node: Node) -> None:
    other = stage.nodes[1]

    def steps() -> dict[str, str]:
        done = node.ctl("ping", "node2", "-o", "json")
        document = json.loads(done.stdout)
        check("ping", document)
        assert done.returncode == (0 if document["reachable"] else 1)
        return {step["step"]: f"{step['result']}: {step['text']}" for step in document["steps"]}

    good = steps()
    assert good["route"].startswith("ok: installed")
    assert good["neighbour"] == "ok: valid"
    assert good["icmp"].startswith("ok: 3 of 3 answered")
    assert good["mtu"] == "ok: 1500 bytes pass unfragmented"
    assert good["containers"].startswith("unknown: Docker does not answer here: ")
    assert good["agent"].startswith("unknown: Docker is absent (reported ")
    switch = stage.lan.switch
    port = next(
        line.split(":")[1].split("@")[0].strip()
        for line in switch.ip("-o link show master br0").splitlines()
        if f"p{stage.lan.hosts.index(other.host)}-" in line
    )
    switch.ip(f"link set {port} mtu 1400")
    try:
        assert steps()["mtu"] == "failed: only 1400 of 1500 bytes pass"
        switch.ip(f"link set {port} down")
        node.host.ip("neigh flush dev eth0")
        silent = steps()
        assert silent["neighbour"].startswith("failed: ")
        assert silent["icmp"].startswith("failed: ")
        assert silent["containers"] == "unknown: not tested: the host itself does not answer"
    finally:
        switch.ip(f"link set {port} mtu 1500 up")
    map_document = node.document("map")
    check("map", map_document)
    assert [each["host_name"] for each in map_document["peers"]] == ["node2"]
    assert map_document["peers"][0]["state"] == "untested"
    assert "Docker does not answer here" in map_document["untested"]
    assert node.ctl("map", "-o", "json", user=65534).returncode == 11


def test_trace_tells_the_way_with_and_without_an_agent(stage: Stage, node: Node) -> None:
    other = stage.nodes[1]
    far = other.subnet().replace("0/24", "9")

    def traced(to: str, *more: str, user: int = 0) -> tuple[int, dict[str, str]]:
        done = node.ctl("trace", node.address, to, "-o", "json", *more, user=user)
        document = json.loads(done.stdout)
        check("trace", document)
        frames = (document["capture"] or {}).get("frames", [])
        steps = {
            f"{e['host']} {e['step']}": f"{e['result']}: {e['text']}" for e in document["steps"]
        }
        return done.returncode, {**steps, "frames": str([(e["link"], e["ttl"]) for e in frames])}

    status, steps = traced(other.address, "--capture")
    assert status == 0
    assert steps["frames"] == "[('eth0', 64), ('eth0', 64)]"
    assert steps["here route"].startswith("ok: straight by eth0; 192.0.2.0/24")
    assert steps["here neighbour"].endswith("on eth0, valid")
    assert steps["next host"].startswith("ok: node2 at 192.0.2.2")
    status, steps = traced(far)
    assert status == 0
    assert steps["here route"].startswith(f"ok: via 192.0.2.2 by eth0; {other.subnet()}")
    assert steps["here route"].endswith("proto 140 table 254")
    assert steps["next rules"].startswith("unknown: ")
    nowhere, steps = traced("10.127.0.1")
    assert nowhere == 1
    assert steps["here route"].startswith("failed: the kernel has no route to 10.127.0.1")
    waited = node.ctl("trace", "192.0.2.77", node.address, "--capture", "--timeout", "500ms")
    assert waited.returncode == 1
    assert "192.0.2.77 is not on this host: it would come in by eth0" in waited.stdout
    assert waited.stdout.endswith("captured on eth0\n  no packet passed\n")
    assert "waiting 0.5 s for packets" in waited.stderr
    status, steps = traced(far, user=65534)
    assert steps["here route"].startswith("ok: via 192.0.2.2")
    node.stop(signal.SIGKILL)
    try:
        assert traced(far)[1]["next host"].startswith("ok: node2")
        assert node.ctl("trace", "web", far).returncode == 2
    finally:
        node.start()
        eventually(node.subnet, 20)


def test_a_report_holds_no_planted_secret_and_a_full_disk_none_of_it(node: Node) -> None:
    node.host.ip("link set lo alias hunter2-planted-is-no-secret-there")
    text = node.settings.read_text()
    node.settings.write_text(f'{text}# password = "hunter2-planted"\n')
    target = node.folder / "report.tar.gz"
    try:
        assert node.ctl("bugreport", str(target)).returncode == 0
        unpacked = subprocess.run(
            ["tar", "-xzOf", str(target)], check=True, capture_output=True, text=True
        ).stdout
        errors = [line for line in unpacked.splitlines() if "metrics" in line]
        assert "hostmesh_ready" in unpacked, (errors, node.log.read_text()[-2000:])
        assert '"subnet"' in unpacked
        assert 'password = "***"' in unpacked
        log_and_answers = node.log.read_text() + metrics(node) + node.ctl("status").stdout
        assert "hunter2" not in log_and_answers
    finally:
        node.settings.write_text(text)
    full = 'mkdir -p "$0" && mount -t tmpfs -o size=4k none "$0" && exec "$@" "$0/report"'
    command = ["sh", "-c", full, str(node.folder / "full"), *node.ctl_command("bugreport")]
    done = node.inside(command, cwd=ROOT)
    assert done.returncode == 26, done.stderr
    assert "No space left" in done.stderr


def test_routes_name_the_host_behind_each(stage: Stage, node: Node) -> None:
    other = stage.nodes[1]
    rows = {row["destination"]: row for row in node.document("routes")["routes"]}
    row = rows[other.subnet()]
    assert (row["host_name"], row["gateway"], row["link"], row["state"]) == (
        "node2",
        "192.0.2.2",
        "eth0",
        "installed",
    )
    assert rows["10.64.0.0/10"]["kind"] == "unreachable"


def test_status_without_an_agent_comes_from_etcd_and_kernel_and_says_so(
    stage: Stage, agent_down: Node
) -> None:
    node, other = agent_down, stage.nodes[1]
    done = node.ctl("status", "-o", "json")
    assert done.returncode == 0
    assert "from etcd, the kernel and this host's files instead" in done.stderr
    document = json.loads(done.stdout)
    check("status", document)
    assert (document["state"], document["source"]) == ("stopped", "host")
    assert document["routes"] == {"desired": 2, "installed": 2, "drift": 0}
    assert [peer["host_name"] for peer in document["peers"]] == ["node2"]
    assert document["conditions"][0]["name"] == "agent-not-running"
    assert document["repairs"] is None
    rules = node.ctl("firewall", "show")
    assert rules.returncode == 0
    assert "from etcd, the kernel" in rules.stderr
    assert "ipset hostmesh-in-" in rules.stdout
    node.host.ip(f"route del {other.subnet()} proto 140")
    rows = {row["destination"]: row["state"] for row in node.document("routes")["routes"]}
    assert rows[other.subnet()] == "missing"
    assert node.document("status")["routes"]["drift"] == 1


def test_another_user_is_told_the_same_without_an_agent(agent_down: Node) -> None:
    assert agent_down.socket.exists()  # the locked door that a killed agent leaves behind
    done = agent_down.ctl("status", "-o", "json", user=65534)
    assert done.returncode == 0, done.stderr
    check("status", json.loads(done.stdout))
    assert json.loads(done.stdout)["routes"]["desired"] == 2


def test_another_user_may_not_ask_the_agent_and_is_told_how_to(node: Node) -> None:
    for verb in ("status", "leases", "routes"):
        done = node.ctl(verb, user=65534)
        assert done.returncode == 11
        assert "agent.socket_group" in done.stderr


def test_with_agent_and_etcd_down_the_copy_speaks(stage: Stage, agent_down: Node) -> None:
    stage.stop_etcd()
    try:
        status = agent_down.ctl("status", "-o", "json")
        document = json.loads(status.stdout)
        assert document["etcd"]["cached"]
        assert document["routes"]["desired"] == 2
        assert {each["name"] for each in document["conditions"]} >= {
            "agent-not-running",
            "etcd-unreachable",
        }
        leases = agent_down.ctl("leases", "-o", "json")
        assert leases.returncode == 0
        check("leases", json.loads(leases.stdout))
        assert json.loads(leases.stdout)["cached"]
        shown = agent_down.ctl("leases").stdout.splitlines()
        assert shown[0].startswith("! etcd unreachable: this host's own copy"), shown
        assert shown[1].endswith("STATE")
        assert all(line.endswith("  unknown") for line in shown[2:]), shown
    finally:
        stage.start_etcd()


def test_promise_9_stale_data_is_no_fact_and_says_how_old_it_is(stage: Stage, node: Node) -> None:
    """etcd and a host lose power: whether that host is up cannot be known."""
    other = stage.nodes[1]
    eventually(lambda: _all_alive(node), 20)
    stage.stop_etcd()
    other.host.ip("link set eth0 down")
    try:
        eventually(lambda: node.document("leases").get("stale"), 30)
        began_s = time.time()
        leases, status = node.document("leases"), node.document("status")
        for document in (leases, status, node.document("routes"), node.document("map")):
            assert document["stale"]
            assert 0 <= document["as_of_s_ago"] < 60
            made_s = document["as_of"] + document["as_of_s_ago"]
            assert began_s - 1 < made_s < time.time() + 1
        check("leases", leases)
        check("status", status)
        for each in (*leases["leases"], *status["peers"]):
            assert (each["alive"], each["heartbeat"]) == (None, "unknown")
            assert 0 <= each["last_seen_s"] < 60
        for verb in ("leases", "status", "map", "routes", "diff", "ping"):
            done = node.ctl(verb, *(["node2"] if verb == "ping" else []))
            first, *rest = done.stdout.splitlines()
            assert first.startswith("! etcd unreachable for "), done.stdout
            assert ": last known state, as of " in first
            assert not re.search(r"\bup\b(?! \d+ s ago)", "".join(rest[1:])), done.stdout
            if verb in {"status", "leases", "map", "ping"}:
                assert re.search(r"unknown \(was up \d+ s ago\)", done.stdout), done.stdout
        assert done.returncode == 1
        assert "failed  icmp" in done.stdout
        text = metrics(node)
        assert 'hostmesh_peers{state="alive"} 0.0' in text
        assert 'hostmesh_peers{state="unknown"} 1.0' in text
        assert node.ctl("leases", "--watch", "--timeout", "1500ms").stdout == ""
    finally:
        other.host.ip("link set eth0 up")
        stage.start_etcd()
    eventually(lambda: _all_alive(node), 30)
    assert not node.document("leases")["stale"]
    assert node.ctl("leases").stdout.split()[0] == "HOST"


def test_watch_tells_a_change_in_one_line(stage: Stage, node: Node) -> None:
    other = stage.nodes[1]
    # An agent that was just started speaks of its copy before it has heard etcd: that is news.
    eventually(lambda: _all_alive(node), 20)
    other.stop(signal.SIGKILL)
    try:
        done = node.ctl("leases", "--watch", "--timeout", "500ms")
        assert (done.returncode, done.stdout) == (0, "")  # nothing changed
        lease_key = "/hostmesh/subnets/10.99.0.0-24"
        stage.etcdctl("put", lease_key, '{"PublicIP":"192.0.2.77","BackendType":"host-gw"}')
        eventually(lambda: "10.99.0.0/24" in node.ctl("leases").stdout, 10)
    finally:
        stage.etcdctl("del", "/hostmesh/subnets/10.99.0.0-24")
        other.start()


def _all_alive(node: Node) -> bool:
    document = node.document("leases")
    return not document["cached"] and all(each["alive"] for each in document["leases"])
