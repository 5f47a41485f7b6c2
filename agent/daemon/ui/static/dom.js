"use strict";
/* Elements, text and lists. Data reaches the document as text only: nothing here parses HTML. */

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const MOST_CHARS = 200;

/* Replace characters that are invisible or change the direction of other text. */
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

function plain(value) {
  if (value === null || value === undefined || value === "") return "–";
  const found = String(value).replace(HIDDEN, "\ufffd");
  return found.length > MOST_CHARS ? `${found.slice(0, MOST_CHARS)}…` : found;
}

/* Make an element: h("p.note", {title: "…"}, "text", child, …). */
function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) setAttr(node, name, value);
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function s(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) setAttr(node, name, value);
  return node;
}

/* Writes only what differs: an unchanged document costs no layout. */
function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

function setText(node, value) {
  const text = String(value);
  if (node.textContent !== text) node.textContent = text;
}

function setClass(node, name) {
  if (node.getAttribute("class") !== name) node.setAttribute("class", name);
}

function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/* Make a parent's children those of `items`, in order: each is made once and then updated. */
function keyed(parent, items, keyOf, make, update) {
  const old = parent.keyedNodes || new Map();
  const now = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (now.has(key)) continue;
    let node = old.get(key);
    if (node === undefined) node = make(item);
    if (update) update(node, item);
    now.set(key, node);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const [key, node] of old) if (!now.has(key)) node.remove();
  parent.keyedNodes = now;
}

const name = (value) => h("bdi", {}, plain(value));
const mono = (value) => h("span.mono", {}, plain(value));

function duration(seconds) {
  const n = Math.max(0, Math.round(seconds));
  if (n < 120) return `${n} s`;
  if (n < 7200) return `${Math.round(n / 60)} min`;
  if (n < 172800) return `${Math.round(n / 3600)} h`;
  return `${Math.round(n / 86400)} d`;
}

function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${value.toFixed(2)} ms`;
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

const two = (n) => String(n).padStart(2, "0");
function clock(ms) {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
function day(ms) {
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/* A time that counts up: "29 s"; tick() keeps it right. `at`: milliseconds of this browser's clock. */
function since(node, at, before = "", after = "") {
  setAttr(node, "data-at", at === null ? null : Math.round(at));
  setAttr(node, "data-before", before || null);
  setAttr(node, "data-after", after || null);
  if (at === null) setText(node, "–");
  else count(node);
}
function count(node) {
  const text = duration((Date.now() - Number(node.dataset.at)) / 1000);
  setText(node, `${node.dataset.before || ""}${text}${node.dataset.after || ""}`);
}
function tick() {
  for (const node of document.querySelectorAll("[data-at]")) count(node);
}

const plural = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/* A command as code, with a button that copies it. */
function command(text) {
  const button = h("button.copy", { type: "button", "aria-label": `Copy: ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied");
      setText(button, "Copied");
    } catch {  // no permission, or a page that came without encryption from another host
      getSelection().selectAllChildren(button.previousSibling);
      setText(button, "Selected");
    }
    setTimeout(() => setText(button, "Copy"), 1500);
  });
  return h("span.command", {}, h("code", {}, text), button);
}

/* Programs that a hint may name. A command ends where prose goes on. */
const PROGRAM = /(?:sudo )?\b(?:agentctl|systemctl|journalctl|etcdctl|docker|iptables|nft|sysctl|modprobe|ip (?:link|route|addr|rule|neigh)|hosts\.sh|apt-get|hostmesh-agent|hostmesh-deploy)(?= [a-z-])/g;
const PROSE = new Set(("a accepts after again and any are as at because before brings but by deletes for from has if in is it keeps "
  + "lists makes of on once one or otherwise out says see shows so starts takes tells than that the then there this to until "
  + "which while with without works").split(" "));
/* A name in a command may come from etcd: nothing that a shell would interpret is offered. */
const HARMLESS = /^[\w .,:=/@%+-]+$/;

function commandEnd(hint, start) {
  let end = start;
  for (const match of hint.slice(start).matchAll(/ (\S+)/g)) {
    const word = match[1].replace(/[;:,.]+$/, "");
    if (!word || PROSE.has(word) || word.startsWith("(")) break;
    end = start + match.index + 1 + word.length;
    if (word !== match[1]) break;
  }
  return end;
}

/* Return a hint as text and commands. */
function hintNodes(hint) {
  const found = [];
  let done = 0;
  for (const match of hint.matchAll(PROGRAM)) {
    const after = match.index + match[0].length;
    const end = commandEnd(hint, after);
    const text = hint.slice(match.index, end);
    if (match.index < done || end === after || !HARMLESS.test(text)) continue;
    if (match.index > done) found.push(plain(hint.slice(done, match.index)));
    found.push(command(text));
    done = end;
  }
  if (done < hint.length) found.push(plain(hint.slice(done)));
  return found;
}

let announced = "";
function announce(text) {
  if (text === announced) return;
  announced = text;
  setText($("announcer"), text);
}
