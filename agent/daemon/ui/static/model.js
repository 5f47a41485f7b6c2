/* The mesh as the page shows it, made of the newest sections. */

const data = { sections: {}, at: {}, beat: 0, fixed: 0 };

const SIGNS = {
  ok: { sign: "●", text: "answers on the container path" },
  up: { sign: "◐", text: "up, container path not tested" },
  joining: { sign: "◌", text: "joining" },
  silent: { sign: "○", text: "no heartbeat" },
  unknown: { sign: "?", text: "not known" },
  down: { sign: "✕", text: "down" },
  failed: { sign: "!", text: "a check fails" },
};
const SEVERITIES = { error: 0, warning: 1, reported: 2, info: 3 };

const section = (key) => {
  const found = data.sections[key];
  return found && !found.error ? found : null;
};
/* When an age of a section began, in milliseconds of this browser's clock. */
const began = (key, age) =>
  age === null || age === undefined ? null : (data.at[key] || Date.now()) - age * 1000;

function buildModel() {
  const status = section("status") || {};
  const model = {
    status,
    stale: Boolean(status.stale),
    asOf: status.as_of ? status.as_of * 1000 : null,
    hosts: buildHosts(status),
    networks: (section("networks") || {}).networks || [],
    containers: (section("containers") || {}).containers || [],
    events: ((section("events") || {}).events || []).slice().reverse(),
    check: section("check"),
    checks: (section("checks") || {}).hosts || [],
  };
  model.byName = new Map(model.hosts.map((host) => [host.key, host]));
  model.problems = buildProblems(model);
  return model;
}

function buildHosts(status) {
  const peers = new Map((status.peers || []).map((peer) => [peer.subnet, peer]));
  const checked = new Map(((section("check") || {}).peers || []).map((peer) => [peer.subnet, peer]));
  const running = countBy((section("containers") || {}).containers || [], (each) => each.host_id);
  const known = section("containers") !== null;
  const leases = (section("leases") || {}).leases || [];
  return leases.map((lease) => {
    const peer = peers.get(lease.subnet) || {};
    const check = checked.get(lease.subnet) || null;
    const host = {
      ...peer,
      ...lease,
      key: lease.subnet,
      name: lease.host_name || lease.node_address,
      check,
      rtt: check ? check.rtt_ms : null,
      running: known && lease.host_id ? running.get(lease.host_id) || 0 : null,
      seen: began("leases", lease.last_seen_s),
      conditions: lease.conditions || [],
    };
    host.state = host.own ? ownState(status) : stateOf(host, status);
    host.text = stateText(host);
    host.find = [host.name, host.subnet, host.node_address, host.host_id, host.backend, host.link, host.device, host.agent_version, ...host.conditions]
      .filter(Boolean).join("\n").toLowerCase();
    return host;
  });
}

function countBy(items, keyOf) {
  const found = new Map();
  for (const item of items) found.set(keyOf(item), (found.get(keyOf(item)) || 0) + 1);
  return found;
}

function ownState(status) {
  return { ready: "ok", joining: "joining", waiting: "joining", left: "silent" }[status.state] || "failed";
}

/* A green sign means that the container path was tested and answered. */
function stateOf(host, status) {
  if (status.stale || host.heartbeat === "unknown") return "unknown";
  if (host.reachable === false || (!host.alive && host.check && host.check.state === "down")) return "down";
  if (host.alive === false) return "silent";
  if (host.check && host.check.state === "failed") return "failed";
  if (host.check && host.check.state === "ok") return "ok";
  return host.alive ? "up" : "unknown";
}

function stateText(host) {
  if (host.own) return "this host";
  if (host.state === "failed") {
    const bad = host.check.tests.filter((test) => test.result === "failed").map((test) => test.test);
    return `check fails: ${bad.join(", ") || "see details"}`;
  }
  return { ok: "up", up: "up, not tested", silent: "no heartbeat", down: "down", unknown: "unknown" }[host.state];
}

function buildProblems(model) {
  const found = (model.status.conditions || []).map((each) => ({
    key: `${each.name} ${each.subject}`,
    severity: each.severity,
    name: each.name,
    cause: each.cause,
    hint: each.hint || "",
    at: began("status", each.since_s_ago),
  }));
  for (const test of (model.check && model.check.own) || []) {
    if (test.result === "failed") found.push(checkProblem("this host", test, model));
  }
  for (const host of model.hosts) {
    if (host.state !== "failed" || host.own) continue;
    for (const test of host.check.tests) {
      if (test.result === "failed") found.push(checkProblem(plain(host.name), test, model));
    }
  }
  for (const host of model.hosts) {
    if (host.own || !host.conditions.length) continue;
    found.push({
      key: `reported ${host.key}`, severity: "reported", name: "other hosts", at: null,
      cause: `${plain(host.name)} reports ${host.conditions.map(plain).join(", ")}`, hint: `on ${plain(host.name)}: agentctl status`,
    });
  }
  for (const [key, each] of Object.entries(data.sections)) {
    if (each && each.error && !["check", "checks"].includes(key)) {
      found.push({
        key: `section ${key}`, severity: "warning", name: `${key} cannot be shown`,
        cause: each.error.message, hint: each.error.hint || "", at: null,
      });
    }
  }
  return found.sort((a, b) => SEVERITIES[a.severity] - SEVERITIES[b.severity]);
}

function checkProblem(where, test, model) {
  return {
    key: `check ${where} ${test.test}`,
    severity: "error",
    name: `check-${test.test}`,
    cause: `${where}: ${test.text}`,
    hint: test.hint || "",
    at: began("check", model.check.checked_s_ago),
  };
}

/* Search: every word must occur; an address finds the host whose subnet holds it. */
function matcher(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const addresses = words.map(ipv4);
  return (text, subnet) =>
    words.every((word, i) => text.includes(word) || (subnet && addresses[i] !== null && holds(subnet, addresses[i])));
}

function ipv4(text) {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!parts || parts.slice(1).some((part) => part > 255)) return null;
  return parts.slice(1).reduce((sum, part) => sum * 256 + Number(part), 0);
}

function holds(subnet, address) {
  const [base, length] = subnet.split("/");
  const first = ipv4(base);
  return first !== null && address >= first && address < first + 2 ** (32 - Number(length));
}
