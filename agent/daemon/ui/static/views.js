/* The overview's figures and problems, and the tables. */

const ROWS = 100;
const PROBLEMS = 5;
const shownAll = new Set();
const NOUNS = { info: "info", reported: "reported by other hosts" };

function renderFigures(model) {
  const { status, hosts } = model;
  const peers = hosts.filter((host) => !host.own);
  const up = peers.filter((host) => ["ok", "up"].includes(host.state)).length;
  const routes = status.routes || {};
  const etcd = status.etcd || {};
  const docker = status.docker || {};
  const mesh = status.mesh || {};
  const known = section("containers") !== null;
  const check = model.check;
  const figures = [
    ["Peers up", model.stale ? "?" : `${up} of ${peers.length}`, model.stale || up === peers.length ? "" : "warn",
      mesh.cidr ? `${plain(mesh.cidr)}, ${hosts.length} of ${mesh.subnets ?? "?"} subnets` : "no mesh yet"],
    ["Backend", plain(mesh.backend), "", mesh.device ? `${plain(mesh.device)}, container MTU ${mesh.container_mtu}` : ""],
    ["Containers", known ? model.containers.length.toLocaleString("en") : "–", "", plural(model.networks.length, "mesh network")],
    ["Routes here", routes.installed === null || routes.installed === undefined ? "?" : `${routes.installed} of ${routes.desired}`,
      routes.drift ? "warn" : "", routes.drift ? `${routes.drift} differ` : "as desired"],
    ["Check", check && check.state !== "none" ? checkWord(check) : "none yet", check && check.counts.failed ? "bad" : "",
      check && check.state !== "none" ? ["", began("check", check.checked_s_ago)] : "agentctl check"],
    ["etcd", etcd.connected ? "connected" : "unreachable", etcd.connected ? "" : "bad",
      etcd.connected ? "" : ["", began("status", etcd.last_contact_s_ago)]],
    ["Docker", plain(docker.state), docker.state === "ready" ? "" : "warn", docker.version ? plain(docker.version) : ""],
  ];
  keyed($("figures"), figures, (each) => each[0],
    ([title]) => h("div.figure", {}, h("dt", {}, title), h("dd.value"), h("dd.under")),
    (node, [, value, level, under]) => {
      setClass(node, `figure ${level}`);
      setText(node.children[1], value);
      if (Array.isArray(under)) since(node.children[2], under[1], under[0], " ago");
      else { setAttr(node.children[2], "data-at", null); setText(node.children[2], under); }
    });
}

function checkWord(check) {
  const { ok, failed, down, untested } = check.counts;
  if (failed) return `${failed} failed`;
  return `${ok} of ${ok + down + untested} ok`;
}

function renderProblems(model, matches) {
  const counts = countBy(model.problems, (each) => each.severity);
  const title = $("problems-title");
  setClass($("problems"), `card problems ${model.problems.length ? model.problems[0].severity : "none"}`);
  setText(title, model.problems.length
    ? `Problems: ${[...counts].map(([severity, n]) => severity in NOUNS ? `${n} ${NOUNS[severity]}` : plural(n, severity)).join(", ")}`
    : "No problems on this host");
  const found = model.problems.filter((each) => matches(`${each.name} ${each.cause} ${each.hint}`.toLowerCase()));
  const groups = new Map();
  for (const each of found) {
    const group = `${each.severity} ${each.name}`;
    groups.set(group, [...(groups.get(group) || []), each]);
  }
  const rows = [];
  for (const [group, those] of groups) {
    const all = shownAll.has(group) || those.length <= PROBLEMS + 1;
    rows.push(...(all ? those : those.slice(0, PROBLEMS)));
    if (!all) rows.push({ key: `more ${group}`, more: those.length - PROBLEMS, group, name: those[0].name, severity: those[0].severity });
  }
  keyed($("problem-list"), rows, (each) => each.key, (each) => (each.more ? makeMore(each) : makeProblem(each)), updateProblem);
}

function makeMore(each) {
  const button = h("button.quiet", { type: "button" });
  button.addEventListener("click", () => { shownAll.add(each.group); schedule(); });
  return h("li.rest", {}, button);
}

function makeProblem(each) {
  return h("li", {}, h("span.severity", {}, each.severity), h("div.what", {}, h("p.cause"), h("p.hint")),
    h("div.aside", {}, h("span.mono.id", {}, plain(each.name)), h("span.age")));
}

function updateProblem(node, each) {
  setClass(node, each.more ? "rest" : `problem ${each.severity}`);
  if (each.more) {
    setText(node.firstChild, `and ${each.more} more: ${plain(each.name)}`);
    return;
  }
  setText(node.querySelector(".cause"), plain(each.cause));
  const hint = node.querySelector(".hint");
  if (hint.shownHint !== each.hint) {
    hint.shownHint = each.hint;
    hint.replaceChildren(...hintNodes(each.hint));
  }
  since(node.querySelector(".age"), each.at, "for ");
  if (each.at === null) setText(node.querySelector(".age"), "");
}

/* A table: columns are [title, class, fill(cell, row), value for sorting]. */
function renderTable(place, key, caption, columns, rows, total) {
  if (!place.firstChild) {
    const table = h("table", {}, h("caption.hidden", {}, caption), h("thead", {}, h("tr")), h("tbody"));
    columns.forEach(([title, style], i) => {
      const button = h("button", { type: "button" }, title);
      button.addEventListener("click", () => {
        place.order = place.order === i + 1 ? -(i + 1) : i + 1;
        schedule();
      });
      table.tHead.rows[0].append(h("th", { scope: "col", class: style || null }, button));
    });
    place.append(h("div.scroll", { tabindex: "0", role: "region", "aria-label": caption }, table), h("p.under"));
  }
  const [scroll, under] = place.children;
  const table = scroll.firstChild;
  const order = place.order || 0;
  [...table.tHead.rows[0].cells].forEach((cell, i) =>
    setAttr(cell, "aria-sort", Math.abs(order) === i + 1 ? (order > 0 ? "ascending" : "descending") : null));
  if (order) {
    const value = columns[Math.abs(order) - 1][3];
    rows = rows.slice().sort((a, b) => compareValues(value(a), value(b)) * Math.sign(order));
  }
  const listed = shownAll.has(key) ? rows : rows.slice(0, ROWS);
  keyed(table.tBodies[0], listed, (row) => row.key,
    () => h("tr", {}, ...columns.map(([, style], i) => h(i ? "td" : "th", { class: style || null, scope: i ? null : "row" }))),
    (line, row) => columns.forEach(([, , fill], i) => fill(line.children[i], row)));
  setText(under, rows.length === total ? "" : `${rows.length.toLocaleString("en")} of ${total.toLocaleString("en")} match the search. `);
  if (!total) setText(under, "None.");
  if (listed.length < rows.length) {
    const button = h("button.quiet", { type: "button" }, `Show all ${rows.length.toLocaleString("en")}`);
    button.addEventListener("click", () => { shownAll.add(key); schedule(); });
    under.append(`The first ${ROWS} are shown. `, button);
  }
}

function compareValues(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}

const textCell = (of) => (cell, row) => setText(cell, plain(of(row)));
const nameCell = (of) => (cell, row) => {
  if (!cell.firstChild) cell.append(h("bdi"));
  setText(cell.firstChild, plain(of(row)));
};
function hostCell(cell, host) {
  if (!cell.firstChild) {
    const button = h("button.link", { type: "button" }, h("bdi"));
    button.addEventListener("click", () => openDetail(button.hostKey));
    cell.append(button);
  }
  cell.firstChild.hostKey = host.key;
  setText(cell.firstChild.firstChild, plain(host.name));
}
function stateCell(cell, host) {
  if (!cell.firstChild) cell.append(h("span.sign", { "aria-hidden": "true" }), " ", h("span"), " ", h("span.age"));
  const [sign, text, age] = cell.children;
  setClass(sign, `sign s-${host.state}`);
  setText(sign, SIGNS[host.state].sign);
  setText(text, host.text);
  if (["down", "silent", "unknown"].includes(host.state) && host.seen !== null) since(age, host.seen, "seen ", " ago");
  else { setAttr(age, "data-at", null); setText(age, ""); }
}

const HOST_COLUMNS = [
  ["Host", "", hostCell, (host) => host.name],
  ["State", "", stateCell, (host) => -BADNESS.indexOf(host.state)],
  ["Subnet", "mono", textCell((host) => host.subnet), (host) => ipv4(host.subnet.split("/")[0])],
  ["Node address", "mono", textCell((host) => host.node_address), (host) => ipv4(host.node_address)],
  ["Way", "", textCell((host) => wayOf(host)), (host) => wayOf(host)],
  ["Containers", "number", textCell((host) => host.running), (host) => host.running],
  ["Version", "", (cell, host) => { setText(cell, plain(host.agent_version)); setClass(cell, host.outdated ? "outdated" : ""); },
    (host) => host.agent_version],
  ["Conditions", "", textCell((host) => host.conditions.join(", ")), (host) => host.conditions.length],
  ["Docker", "", textCell((host) => host.docker), (host) => host.docker],
  ["RTT", "number", (cell, host) => setText(cell, milliseconds(host.rtt)), (host) => host.rtt],
];

function wayOf(host) {
  if (host.own) return "–";
  const way = host.direct === null ? "no route" : `${host.device}, ${host.direct ? "direct" : "tunnel"}`;
  return host.link ? `${way}, link ${host.link}` : way;
}

function renderHosts(model, matches) {
  const rows = model.hosts.filter((host) => matches(host.find, host.subnet));
  renderTable($("hosts"), "hosts", "Hosts of the mesh", HOST_COLUMNS, rows, model.hosts.length);
}

const HEALTH = { healthy: "healthy", unhealthy: "unhealthy", starting: "starting", none: "–" };
const CONTAINER_COLUMNS = [
  ["Container", "", nameCell((each) => each.name), (each) => each.name],
  ["Host", "", nameCell((each) => each.host_name), (each) => each.host_name],
  ["Addresses", "mono", textCell((each) => each.places), (each) => each.places],
  ["Service", "", nameCell((each) => (each.project ? `${each.project}/${each.service || ""}` : each.service)), (each) => each.service],
  ["Health", "", (cell, each) => { setText(cell, HEALTH[each.health] || "–"); setClass(cell, `health-${each.health}`); }, (each) => each.health],
];

function renderContainers(model, matches) {
  const every = model.containers.map((each) => {
    const places = each.addresses.map((at) => `${at.address} ${at.mesh_network || at.network}`).join(", ");
    const text = [each.name, each.host_name, places, each.service, each.project, each.id.slice(0, 12),
      ...each.addresses.flatMap((at) => at.aliases)].filter(Boolean).join("\n").toLowerCase();
    return { ...each, key: `${each.host_id} ${each.id}`, places, text };
  });
  const rows = every.filter((each) => matches(each.text));
  renderTable($("containers"), "containers", "Running containers of the mesh", CONTAINER_COLUMNS, rows, every.length);
}

const PART_COLUMNS = [
  ["Host", "", nameCell((part) => part.host_name), (part) => part.host_name],
  ["State", "", textCell((part) => part.state), (part) => part.state],
  ["Subnet", "mono", textCell((part) => part.subnet), (part) => part.subnet],
  ["Containers", "number", textCell((part) => part.containers), (part) => part.containers],
  ["Waits for", "", textCell((part) => part.waits_for), (part) => part.waits_for],
];

function renderNetworks(model, matches) {
  const place = $("networks");
  const rows = model.networks.filter((each) =>
    matches([each.name, ...each.parts.map((part) => `${part.host_name} ${part.subnet}`)].join("\n").toLowerCase()));
  if (!place.firstChild) place.append(h("div.stack"), h("p.empty"));
  keyed(place.firstChild, rows, (each) => each.name,
    () => h("section.card.network", {}, h("div.title", {}, h("h3", {}, h("bdi")), h("span.way")), h("div.flush")),
    (node, each) => {
      setText(node.querySelector("bdi"), plain(each.name));
      const ready = each.parts.filter((part) => part.state === "ready").length;
      const access = each.access ? `access ${each.access} · ` : "";
      setText(node.querySelector(".way"), `${access}${each.record ? "record" : "by label"} · ready on ${ready} of ${plural(each.parts.length, "host")}`);
      const parts = each.parts.map((part) => ({ ...part, key: part.host_id }));
      renderTable(node.lastChild, `network ${each.name}`, `Parts of network ${plain(each.name)}`, PART_COLUMNS, parts, parts.length);
    });
  const empty = model.networks.length ? "No network matches the search." : "This mesh has no networks that span hosts. Create one: agentctl network create NAME";
  setText(place.lastChild, rows.length ? "" : empty);
}

const GOOD = new Set(["condition-cleared", "peer-joined", "subnet-held", "route-repaired", "rules-repaired"]);
const BAD = new Set(["condition-raised", "peer-left"]);
function renderEvents(list, events, matches) {
  const rows = events.filter((each) => matches(`${each.kind} ${each.subject} ${each.text}`.toLowerCase()));
  keyed(list, rows, (each) => each.id, (each) => {
    const at = new Date(each.at * 1000);
    const level = GOOD.has(each.kind) ? "good" : BAD.has(each.kind) ? "bad" : "";
    return h("li", { class: level },
      h("time", { datetime: at.toISOString() }, h("span.day", {}, day(at)), " ", clock(at)),
      h("span.kind", {}, plain(each.kind)), h("span.text", {}, h("bdi", {}, plain(each.text))));
  });
  if (!rows.length && !list.children.length) list.append(h("li.empty", {}, "None."));
}
