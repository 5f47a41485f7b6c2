/* One host in detail, beside the view. */

let detailOf = null;
let openedFrom = null;
const NAMED = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

function openDetail(key) {
  openedFrom = document.activeElement;
  detailOf = key;
  render();
  const button = $("detail").querySelector("button");
  if (button) button.focus();
}

function closeDetail() {
  if (detailOf === null) return false;
  detailOf = null;
  schedule();
  if (openedFrom && openedFrom.isConnected) openedFrom.focus();
  return true;
}

function renderDetail(model) {
  const place = $("detail");
  const host = detailOf === null ? null : model.byName.get(detailOf);
  show(place, Boolean(host));
  setAttr(document.body, "data-detail", host ? "open" : null);
  if (!host) {
    place.replaceChildren();
    place.shown = null;
    return;
  }
  const running = model.containers.filter((each) => each.host_id === host.host_id && host.host_id);
  const version = JSON.stringify([host, running]);
  if (place.shown === version) return;
  const focused = place.contains(document.activeElement) && document.activeElement.className;
  place.shown = version;
  place.replaceChildren(...detailNodes(host, running, model));
  if (focused) (place.querySelector(`button.${focused.split(" ")[0]}`) || place.querySelector("button")).focus();
}

function detailNodes(host, running, model) {
  const close = h("button.close.quiet", { type: "button", "aria-label": "Close details" }, "✕");
  close.addEventListener("click", closeDetail);
  const state = h("p.state");
  stateCell(state, host);
  const found = [h("div.title", {}, h("h2", { id: "detail-title" }, name(host.name)), close), state];
  found.push(h("dl.facts", {}, ...factsOf(host).flatMap(([title, value]) => [h("dt", {}, title), h("dd", {}, value)])));
  if (host.check) found.push(h("h3", {}, "Last check"), checkList(host.check.tests));
  found.push(h("h3", {}, "On this host’s shell"), h("ul.commands", {}, ...commandsOf(host).map((text) => h("li", {}, command(text)))));
  found.push(h("h3", {}, model.containers.length || section("containers") ? plural(running.length, "container") : "Containers not known"));
  found.push(h("ul.running", {}, ...running.slice(0, 50).map((each) =>
    h("li", {}, name(each.name), h("span.mono.sub", {}, each.addresses.map((at) => plain(at.address)).join(", "))))));
  if (running.length > 50) found.push(h("p.note", {}, `and ${running.length - 50} more: search for ${plain(host.name)}`));
  return found;
}

function factsOf(host) {
  const facts = [
    ["Subnet", mono(host.subnet)],
    ["Node address", mono(host.node_address)],
    ["Backend", plain(host.backend)],
    ["Way", plain(wayOf(host))],
    ["MTU", plain(host.mtu)],
    ["Docker", plain(host.docker)],
    ["RTT", milliseconds(host.rtt)],
    ["Level", plain(host.level)],
    ["Host id", mono(host.host_id)],
  ];
  if (host.moving) facts.push(["Moving", "its subnet lies in the previous range"]);
  facts.splice(3, 0, ["Version", `${plain(host.agent_version)}${host.outdated ? ", older than others" : ""}`]);
  if (host.conditions.length) facts.push(["Conditions", host.conditions.map(plain).join(", ")]);
  return facts;
}

function checkList(tests) {
  const signs = { ok: ["ok", "●"], failed: ["failed", "✕"], untested: ["unknown", "·"] };
  return h("ul.tests", {}, ...tests.map((test) => {
    const [state, sign] = signs[test.result] || signs.untested;
    const hint = test.hint && test.result === "failed" ? h("p.hint", {}, ...hintNodes(test.hint)) : null;
    return h("li", {}, h(`span.sign.s-${state}`, { "aria-hidden": "true" }, sign), h("b", {}, plain(test.test)),
      ` ${test.result === "ok" ? "" : `${test.result}: `}${plain(test.text)}`, hint);
  }));
}

/* Another host's name is text from etcd: a command has it only if a shell reads it as one word. */
function commandsOf(host) {
  if (host.own) return ["agentctl status", "agentctl doctor", "agentctl events --since 1h"];
  const known = NAMED.test(host.name) ? host.name : host.subnet;
  const found = [`agentctl ping ${known}`];
  if (host.state === "down") found.push(`agentctl remove ${known}`);
  if (host.container) found.push(`agentctl trace docker0 ${host.container}`);
  return found.slice(0, 2);
}
