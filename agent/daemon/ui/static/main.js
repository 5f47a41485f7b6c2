/* Connection, views, keys. */

const VIEWS = [
  ["overview", "Overview"], ["hosts", "Hosts"], ["networks", "Networks"],
  ["containers", "Containers"], ["latency", "Latency"], ["events", "Events"],
];
const KEYS = [
  ["1 … 6", "open a view"], ["/", "search"], ["p", "go to the problems"], ["m", "go to the map"],
  ["← ↑ → ↓", "move from host to host in the map"], ["Enter", "show the host in detail"],
  ["Esc", "close details, empty the search"], ["?", "show these keys"],
];
const LOST_MS = 8000;
const RETRY_MS = 4000;

let scheduled = false;
let model = null;
let stale = true;
let source = null;
const said = { hosts: new Map(), problems: new Set(), ready: false };

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; render(); });
}

const view = () => {
  const found = location.hash.slice(2);
  return VIEWS.some(([key]) => key === found) ? found : "overview";
};

function render() {
  renderLive();
  if (!data.sections.status) return;
  if (stale) {
    model = buildModel();
    stale = false;
    announceChanges();
  }
  const query = $("search").value.trim();
  const matches = matcher(query);
  const here = view();
  show($("first"), false);
  for (const [key] of VIEWS) show($(`view-${key}`), key === here);
  renderHead();
  renderTabs(here);
  if (here === "overview") {
    renderFigures(model);
    renderProblems(model, matches);
    renderMap(model, matches);
    renderEvents($("recent"), model.events.slice(0, 8), () => true);
  } else if (here === "hosts") renderHosts(model, matches);
  else if (here === "networks") renderNetworks(model, matches);
  else if (here === "containers") renderContainers(model, matches);
  else if (here === "latency") renderLatency(model, matches);
  else renderEvents($("events"), model.events, matches);
  renderDetail(model);
}

function renderHead() {
  const { status } = model;
  setText($("host-name"), plain((status.host || {}).name));
  const pill = $("host-state");
  setText(pill, plain(status.state));
  setClass(pill, `pill s-${ownState(status)}`);
  const bad = model.problems.filter((each) => SEVERITIES[each.severity] < 2).length;
  const title = `${bad ? `(${bad}) ` : ""}${plain((status.host || {}).name)} – Hostmesh`;
  if (document.title !== title) document.title = title;
}

function renderTabs(here) {
  const bad = model.problems.filter((each) => SEVERITIES[each.severity] < 2).length;
  const counts = { overview: bad, hosts: model.hosts.length, networks: model.networks.length, containers: model.containers.length };
  keyed($("tabs"), VIEWS, ([key]) => key, ([key, title]) => h("li", {}, h("a", { href: `#/${key}` }, title, h("span.badge"))), (item, [key]) => {
    const link = item.firstChild;
    setAttr(link, "aria-current", key === here ? "page" : null);
    const badge = link.lastChild;
    setText(badge, counts[key] ? counts[key].toLocaleString("en") : "");
    setClass(badge, key === "overview" ? "badge bad" : "badge");
    setAttr(badge, "aria-label", key === "overview" && bad ? plural(bad, "problem") : null);
  });
}

/* The page says how old its data is as soon as that is not now. */
function renderLive() {
  const now = Date.now();
  const lost = !data.fixed && now - data.beat > LOST_MS;
  const live = $("live");
  const banner = $("banner");
  const old = lost || (model && model.stale);
  setClass(document.body, old ? "old" : "");
  if (data.fixed) {
    setClass(live, "live fixed");
    setText($("live-text"), `Snapshot of ${day(data.fixed)} ${clock(data.fixed)}`);
  } else if (lost) {
    setClass(live, "live lost");
    setText($("live-text"), "Reconnecting…");
  } else {
    setClass(live, "live on");
    setText($("live-text"), "Live");
  }
  let text = "";
  if (lost) {
    text = data.beat
      ? `No answer from the agent for ${duration((now - data.beat) / 1000)}. This is the state of ${clock(data.beat)}. Reconnecting…`
      : "No answer from the agent yet. Reconnecting…";
  } else if (model && model.stale) {
    const contact = began("status", model.status.as_of_s_ago);
    text = contact === null ? "etcd unreachable: last known state, of unknown age"
      : `etcd unreachable for ${duration((now - contact) / 1000)}: last known state, as of ${clock(contact)}`;
  }
  setText(banner, text);
  show(banner, Boolean(text));
}

/* Screen readers hear what changed, not every figure. */
function announceChanges() {
  const news = [];
  const hosts = new Map(model.hosts.map((host) => [host.key, host]));
  if (said.ready) {
    for (const host of model.hosts) {
      const before = said.hosts.get(host.key);
      const was = before && (BADNESS.indexOf(before) > 2);
      const is = BADNESS.indexOf(host.state) > 2;
      if (!before) news.push(`${plain(host.name)} joined`);
      else if (was !== is) news.push(`${plain(host.name)}: ${host.text}`);
    }
    for (const each of model.problems) if (!said.problems.has(each.key)) news.push(`New ${each.severity}: ${plain(each.cause)}`);
  }
  said.ready = true;
  said.hosts = new Map([...hosts].map(([key, host]) => [key, host.state]));
  said.problems = new Set(model.problems.map((each) => each.key));
  if (news.length) announce(news.slice(0, 3).join(". ") + (news.length > 3 ? `. And ${news.length - 3} more changes` : ""));
}

function receive(key, value) {
  data.sections[key] = value;
  data.at[key] = Date.now();
  stale = true;
  schedule();
}

function connect() {
  source = new EventSource("ui/stream");
  for (const key of ["status", "leases", "events", "check", "checks", "networks", "containers"]) {
    source.addEventListener(key, (event) => { beat(); receive(key, JSON.parse(event.data)); });
  }
  source.addEventListener("hello", beat);
  source.addEventListener("beat", beat);
  source.addEventListener("error", () => {
    // The browser reconnects after a cut, but not after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
  });
}

function beat() {
  const before = data.beat;
  data.beat = Date.now();
  if (data.beat - before > LOST_MS) schedule();
}

function goTo(key) {
  location.hash = `/${key}`;
}

function jump(id) {
  goTo("overview");
  render();  // what is hidden takes no focus
  const target = id === "map" ? $("map").querySelector(".host[tabindex='0']") : $(id);
  if (!target) return;
  if (id !== "map") setAttr(target, "tabindex", "-1");
  target.focus();
  target.scrollIntoView({ block: "nearest" });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === $("search");
  if (event.key === "Escape") {
    if ($("help").open) return;
    if (typing || $("search").value) {
      $("search").value = "";
      $("search").blur();
      schedule();
    } else closeDetail();
    return;
  }
  if (typing) {
    if (event.key === "Enter") event.preventDefault();
    return;
  }
  const number = Number(event.key);
  if (number >= 1 && number <= VIEWS.length) goTo(VIEWS[number - 1][0]);
  else if (event.key === "/") { event.preventDefault(); $("search").focus(); $("search").select(); }
  else if (event.key === "?") $("help").showModal();
  else if (event.key === "p") jump("problems");
  else if (event.key === "m") jump("map");
}

function start() {
  $("keys").append(...KEYS.flatMap(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]));
  $("legend").append(...["ok", "up", "silent", "down"].map((key) =>
    h("li", {}, h(`span.sign.s-${key}`, { "aria-hidden": "true" }, SIGNS[key].sign), SIGNS[key].text)));
  $("search").addEventListener("input", schedule);
  $("search-form").addEventListener("submit", (event) => event.preventDefault());
  $("help-button").addEventListener("click", () => $("help").showModal());
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => { schedule(); $("main").scrollTop = 0; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", schedule);
  setInterval(() => { tick(); renderLive(); }, 1000);
  const snapshot = $("snapshot");
  if (snapshot) {
    const found = JSON.parse(snapshot.textContent);
    data.fixed = found.at * 1000;
    for (const [key, value] of Object.entries(found.sections)) receive(key, value);
  } else connect();
}

start();
