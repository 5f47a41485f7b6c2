/* The map: this host, a line to every peer or link, and the peers by link. */

const collator = new Intl.Collator("en", { numeric: true });
const WIDE_MOST = 8;
const ALL_WIDE_MOST = 24;
let wiresOf = "";

function groupsOf(hosts) {
  const found = new Map();
  const peers = hosts.filter((host) => !host.own);
  for (const host of peers) {
    const kind = host.direct === true ? "direct" : host.direct === false ? "tunnel" : "none";
    const key = `${kind} ${host.link || ""} ${host.device || ""}`;
    if (!found.has(key)) {
      found.set(key, { key, kind, link: host.link, device: host.device, backend: host.backend, hosts: [] });
    }
    found.get(key).hosts.push(host);
  }
  const order = { direct: 0, tunnel: 1, none: 2 };
  const groups = [...found.values()].sort(
    (a, b) => order[a.kind] - order[b.kind] || collator.compare(a.link || "", b.link || ""));
  for (const group of groups) {
    group.hosts.sort((a, b) => collator.compare(a.name, b.name));
    group.compact = group.hosts.length > WIDE_MOST || peers.length > ALL_WIDE_MOST;
  }
  return groups;
}

function groupTitle(group) {
  if (group.kind === "none") return "No route from here";
  if (group.link) return `Link ${plain(group.link)}`;
  return group.kind === "direct" ? "Same network" : "Other networks";
}

function groupWay(group) {
  if (group.kind === "none") return "";
  const how = group.kind === "direct" ? "direct" : group.backend === "wireguard" ? "encrypted tunnel" : "tunnel";
  return `${plain(group.backend)} · ${how} · ${plain(group.device)}`;
}

function makeHost() {
  const button = h("button.host", { type: "button", tabindex: "-1" },
    h("span.sign", { "aria-hidden": "true" }), h("bdi.name"), h("span.sub.mono"), h("span.note"));
  button.addEventListener("click", () => openDetail(button.hostKey));
  button.addEventListener("focus", () => rove(button));
  return h("li", {}, button);
}

function updateHost(item, host, matches, compact) {
  const button = item.firstChild;
  button.hostKey = host.key;
  const [sign, label, sub, note] = button.children;
  const dim = matches(host.find, host.subnet) ? "" : " dim";
  setClass(button, `host s-${host.state}${host.own ? " own" : ""}${dim}`);
  setText(sign, SIGNS[host.state].sign);
  setText(label, plain(host.name));
  setText(sub, host.subnet);
  setText(note, compact ? "" : noteOf(host));
  const said = host.state === "ok" && !host.own ? "up" : host.text;
  setAttr(button, "aria-label", `${plain(host.name)}, ${said}, ${host.subnet}`);
  setAttr(button, "title", compact ? `${plain(host.name)} · ${host.text} · ${host.subnet}` : null);
}

function noteOf(host) {
  if (!["ok", "up"].includes(host.state)) return host.text;
  const found = [];
  if (host.running !== null) found.push(plural(host.running, "container"));
  if (host.rtt !== null) found.push(milliseconds(host.rtt));
  return found.join(" · ");
}

function makeGroup() {
  const title = h("h4");
  return h("section.group", {}, h("header", {}, title, h("span.way"), h("span.count")), h("ul"));
}

function updateGroup(node, group, matches) {
  setClass(node, `group ${group.kind}${group.compact ? " compact" : ""}`);
  const [head, list] = node.children;
  setText(head.children[0], groupTitle(group));
  setText(head.children[1], groupWay(group));
  const good = group.hosts.filter((host) => ["ok", "up"].includes(host.state)).length;
  setText(head.children[2], `${good} of ${group.hosts.length} up`);
  setAttr(list, "aria-label", groupTitle(group));
  keyed(list, group.hosts, (host) => host.key, makeHost, (item, host) => updateHost(item, host, matches, group.compact));
}

function renderMap(model, matches) {
  const map = $("map");
  if (!map.firstChild) {
    map.append(s("svg", { class: "wires", "aria-hidden": "true" }), h("ul.hub", { "aria-label": "This host" }), h("div.groups"));
    new ResizeObserver(() => { wiresOf = ""; schedule(); }).observe(map);
    map.addEventListener("keydown", moveInMap);
  }
  const [wires, hub, list] = map.children;
  const groups = groupsOf(model.hosts);
  setClass(map, groups.some((group) => group.compact) ? "map large" : "map");
  keyed(hub, model.hosts.filter((host) => host.own), (host) => host.key, makeHost,
    (item, host) => updateHost(item, host, matches, false));
  keyed(list, groups, (group) => group.key, makeGroup, (node, group) => updateGroup(node, group, matches));
  setClass(list, groups.length ? "groups" : "groups alone");
  renderWires(wires, hub.querySelector(".host"), list, groups);
  const first = map.querySelector(".host[tabindex='0']") || map.querySelector(".host");
  if (first) setAttr(first, "tabindex", "0");
}

/* Lines lead to each host of a small group, and to a large group as a whole. */
function renderWires(wires, hub, list, groups) {
  const ends = [];
  groups.forEach((group, i) => {
    const node = list.children[i];
    if (group.compact) ends.push({ key: group.key, node, kind: group.kind, state: worst(group.hosts) });
    else group.hosts.forEach((host, j) => ends.push(
      { key: host.key, node: node.children[1].children[j].firstChild, kind: group.kind, state: host.state }));
  });
  const signature = ends.map((end) => end.key).join();
  const moved = signature !== wiresOf;
  wiresOf = signature;
  let from = null;
  let frame = null;
  if (moved && hub) {
    frame = wires.parentNode.getBoundingClientRect();
    from = hub.getBoundingClientRect();
    for (const end of ends) end.box = end.node.getBoundingClientRect();
  }
  keyed(wires, hub ? ends : [], (end) => end.key, () => s("path"), (path, end) => {
    setClass(path, `wire ${end.kind} s-${end.state}`);
    if (!moved) return;
    const x2 = end.box.left - frame.left;
    const y2 = end.box.top - frame.top + Math.min(22, end.box.height / 2);
    setAttr(path, "d", wirePath(from, frame, x2, y2, end.node.classList.contains("group")));
  });
}

/* A curve to a host; to a large group, which may be far below, down and then across. */
function wirePath(from, frame, x2, y2, isGroup) {
  const x1 = from.right - frame.left;
  const y1 = from.top - frame.top + from.height / 2;
  if (!isGroup) {
    const bend = (x2 - x1) * 0.55;
    return `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
  }
  const bottom = from.bottom - frame.top;
  if (y2 < bottom + 20) return `M${x1} ${y2} H${x2}`;
  const middle = from.left - frame.left + from.width / 2;
  return `M${middle} ${bottom} V${y2 - 12} Q${middle} ${y2} ${middle + 12} ${y2} H${x2}`;
}

const BADNESS = ["ok", "up", "joining", "unknown", "silent", "failed", "down"];
function worst(hosts) {
  return BADNESS[Math.max(...hosts.map((host) => BADNESS.indexOf(host.state)))];
}

function rove(button) {
  for (const other of $("map").querySelectorAll(".host[tabindex='0']")) if (other !== button) setAttr(other, "tabindex", "-1");
  setAttr(button, "tabindex", "0");
}

/* Arrow keys go to the nearest host in that direction, so that Tab passes the map in one step. */
function moveInMap(event) {
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const here = event.target.closest(".host");
  if (!direction || !here) return;
  event.preventDefault();
  const from = here.getBoundingClientRect();
  let best = null;
  let bestCost = Infinity;
  for (const other of $("map").querySelectorAll(".host")) {
    if (other === here) continue;
    const box = other.getBoundingClientRect();
    const dx = box.left - from.left;
    const dy = box.top + box.height / 2 - from.top - from.height / 2;
    const ahead = dx * direction[0] + dy * direction[1];
    const aside = Math.abs(dx * direction[1]) + Math.abs(dy * direction[0]);
    if (ahead > 4 && ahead + 3 * aside < bestCost) {
      best = other;
      bestCost = ahead + 3 * aside;
    }
  }
  if (best) best.focus();
}
