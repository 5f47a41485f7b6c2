/* Round-trip times between hosts: this host's own check, and those that hosts publish. */

const TABLE_MOST = 32;
const STEPS = [1, 5, 20, 100];
const SLOWEST = 20;

function pairsOf(model) {
  const found = new Map();
  const add = (from, to, each, own) => {
    if (from && to) found.set(`${from} ${to}`, { key: `${from} ${to}`, from, to, rtt: each.rtt_ms, state: each.state, own });
  };
  for (const host of model.checks) for (const each of host.worst) add(host.subnet, each.subnet, each, false);
  const own = model.hosts.find((host) => host.own);
  if (own && model.check) for (const each of model.check.peers) add(own.subnet, each.subnet, each, true);
  return found;
}

/* 0 to 4 by the time, 5 for a path that fails, null for what was not measured. */
function heat(pair) {
  if (!pair) return null;
  if (pair.state === "failed" || pair.state === "down") return 5;
  if (pair.rtt === null) return null;
  const step = STEPS.findIndex((limit) => pair.rtt < limit);
  return step < 0 ? STEPS.length : step;
}

function renderLatency(model, matches) {
  const place = $("latency");
  const hosts = model.hosts.filter((host) => matches(host.find, host.subnet)).sort((a, b) => collator.compare(a.name, b.name));
  // Hosts come and go more often than checks: a large matrix is made anew only for what it shows.
  const table = place.lastChild && place.lastChild.lastChild;
  const version = [data.at.check, data.at.checks, table && table.order, matchMedia("(prefers-color-scheme: dark)").matches,
    ...hosts.map((host) => host.key + host.name)].join("\n");
  if (place.shownVersion === version) return;
  place.shownVersion = version;
  const pairs = pairsOf(model);
  if (!place.firstChild) {
    place.append(h("div.card", {}, h("p.note"), heatLegend(), h("div.matrix")), h("section.card.flush", { "aria-labelledby": "slowest-title" },
      h("h3", { id: "slowest-title" }, "Slowest and failing"), h("div")));
  }
  const [card, slow] = place.children;
  setText(card.firstChild, pairs.size
    ? "Row: the host that asked. Each host publishes its 32 worst peers; this host's row is complete."
    : "No check has run yet: agentctl check");
  const matrix = card.lastChild;
  if (hosts.length <= TABLE_MOST) heatTable(matrix, hosts, pairs);
  else heatPicture(matrix, hosts, pairs);
  const names = model.byName;
  const worstPairs = [...pairs.values()].filter((pair) => heat(pair) !== null)
    .sort((a, b) => (heat(b) === 5) - (heat(a) === 5) || b.rtt - a.rtt).slice(0, SLOWEST)
    .map((pair) => ({ ...pair, a: names.get(pair.from), b: names.get(pair.to) })).filter((pair) => pair.a && pair.b);
  renderTable(slow.lastChild, "slowest", "Slowest and failing pairs", PAIR_COLUMNS, worstPairs, worstPairs.length);
}

const PAIR_COLUMNS = [
  ["From", "", (cell, pair) => hostCell(cell, pair.a), (pair) => pair.a.name],
  ["To", "", (cell, pair) => hostCell(cell, pair.b), (pair) => pair.b.name],
  ["RTT", "number", (cell, pair) => setText(cell, milliseconds(pair.rtt)), (pair) => pair.rtt],
  ["Result", "", textCell((pair) => pair.state), (pair) => pair.state],
];

function heatLegend() {
  const items = ["under 1 ms", "under 5", "under 20", "under 100", "slower", "fails"].map((text, i) =>
    h("li", {}, h(`span.cell.h${i}`, { "aria-hidden": "true" }, i === 5 ? "✕" : ""), text));
  return h("ul.legend", { "aria-label": "Colours" }, ...items);
}

function heatTable(place, hosts, pairs) {
  if (!place.firstChild || place.firstChild.className !== "scroll") {
    place.keyedNodes = undefined;
    place.replaceChildren(h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Matrix" },
      h("table.heat", {}, h("caption.hidden", {}, "Round-trip times in milliseconds, from the host of the row to the host of the column"),
        h("thead", {}, h("tr")), h("tbody"))));
  }
  const table = place.firstChild.firstChild;
  keyed(table.tHead.rows[0], [null, ...hosts], (host) => (host ? host.key : ""),
    (host) => (host ? h("th", { scope: "col" }, h("bdi")) : h("td")),
    (cell, host) => { if (host) setText(cell.firstChild, plain(host.name)); });
  keyed(table.tBodies[0], hosts, (host) => host.key, () => h("tr", {}, h("th", { scope: "row" }, h("bdi"))), (line, from) => {
    setText(line.firstChild.firstChild, plain(from.name));
    keyed(line, [null, ...hosts], (host) => (host ? host.key : ""), (host) => (host ? h("td") : line.firstChild), (cell, to) => {
      if (!to) return;
      const pair = pairs.get(`${from.key} ${to.key}`);
      const step = heat(pair);
      setClass(cell, from === to ? "self" : step === null ? "none" : `h${step}`);
      setText(cell, from === to ? "" : step === 5 ? "✕" : step === null ? "·" : pair.rtt < 10 ? pair.rtt.toFixed(2) : Math.round(pair.rtt));
      setAttr(cell, "title", from === to ? null : pairText(from, to, pair));
    });
  });
}

function pairText(from, to, pair) {
  const said = !pair ? "not measured" : heat(pair) === 5 ? `the check ${pair.state === "down" ? "finds it down" : "fails"}` : milliseconds(pair.rtt);
  return `${plain(from.name)} to ${plain(to.name)}: ${said}`;
}

/* A large mesh is drawn on a canvas; the table of the slowest below has the figures. */
function heatPicture(place, hosts, pairs) {
  if (!place.firstChild || place.firstChild.tagName !== "CANVAS") {
    const canvas = h("canvas", { role: "img" });
    const said = h("p.note.mono");
    canvas.addEventListener("pointermove", (event) => {
      const size = canvas.clientWidth / canvas.shownHosts.length;
      const from = canvas.shownHosts[Math.floor(event.offsetY / size)];
      const to = canvas.shownHosts[Math.floor(event.offsetX / size)];
      if (from && to) setText(said, from === to ? plain(from.name) : pairText(from, to, canvas.shownPairs.get(`${from.key} ${to.key}`)));
    });
    place.replaceChildren(canvas, said);
  }
  const canvas = place.firstChild;
  canvas.shownHosts = hosts;
  canvas.shownPairs = pairs;
  setAttr(canvas, "aria-label", `Round-trip times between ${hosts.length} hosts; the table below lists the slowest`);
  const size = Math.max(2, Math.floor(900 / hosts.length));
  const width = size * hosts.length;
  if (canvas.width !== width) canvas.width = canvas.height = width;
  const style = getComputedStyle(document.documentElement);
  const colours = [0, 1, 2, 3, 4, 5].map((i) => style.getPropertyValue(`--heat-${i}`));
  const index = new Map(hosts.map((host, i) => [host.key, i]));
  const paint = canvas.getContext("2d");
  paint.fillStyle = style.getPropertyValue("--sunken");
  paint.fillRect(0, 0, width, width);
  const gap = size > 3 ? 1 : 0;
  for (const pair of pairs.values()) {
    const step = heat(pair);
    const x = index.get(pair.to);
    const y = index.get(pair.from);
    if (step === null || x === undefined || y === undefined) continue;
    paint.fillStyle = colours[step];
    paint.fillRect(x * size, y * size, size - gap, size - gap);
  }
}
