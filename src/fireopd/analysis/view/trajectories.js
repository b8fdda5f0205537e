"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const quantities = new Map(data.quantities.map((quantity) => [quantity.name, quantity]));
const SEPARATOR = "\u0000";

/* Texts are inserted as text nodes, never as HTML, so that model output cannot be executed. */
function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/* Values: float16 in base64, decoded on first use. */
function decode(text) {
  const raw = atob(text), values = new Float32Array(raw.length / 2);
  for (let i = 0; i < values.length; i++) {
    const bits = raw.charCodeAt(2 * i) | (raw.charCodeAt(2 * i + 1) << 8);
    const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    if (exponent === 31) values[i] = fraction ? NaN : sign * Infinity;
    else values[i] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  }
  return values;
}

function decoded(row, name) {
  row.decoded ??= new Map();
  if (!row.decoded.has(name)) row.decoded.set(name, name in row.values ? decode(row.values[name]) : null);
  return row.decoded.get(name);
}

function mean(row, name) {
  const values = (decoded(row, name) || []).filter((value) => Number.isFinite(value));
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function show(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 0.0001 || size >= 10000) ? value.toExponential(1) : String(+value.toPrecision(3));
  return text.replaceAll("-", "−");
}

function searched(row) {
  row.text ??= (row.prompt + SEPARATOR + row.tokens.map((place) => data.texts[place]).join("")).toLowerCase();
  return row.text;
}

/* Selection lists. */
function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  select.closest("label").hidden = options.length < 2;
}

function values(key) {
  const found = [...new Set(data.rows.map((row) => row[key]))].filter((value) => value !== null);
  const order = key === "step" ? (a, b) => a - b : undefined;
  return found.length < 2 ? [] : [["", "all"], ...found.sort(order).map((value) => [value, value])];
}

const SORTS = {
  order: ["original order", (row) => row.place, 1],
  best: ["highest score", (row) => row.score, -1],
  worst: ["lowest score", (row) => row.score, 1],
  reward: ["highest reward", (row) => row.reward, -1],
  longest: ["longest", (row) => row.tokens.length, -1],
  shortest: ["shortest", (row) => row.tokens.length, 1],
  keep: ["dropped first", (row) => Number(row.kept), 1],
  group: ["by prompt", (row) => row.step * 1e9 + row.group, 1],
  most: ["highest mean of the colour value", (row) => mean(row, $("quantity").value), -1],
  least: ["lowest mean of the colour value", (row) => mean(row, $("quantity").value), 1],
};

function chosen() {
  const words = $("search").value.toLowerCase();
  const [, key, direction] = SORTS[$("sort").value];
  const same = (name, row) => !$(name).value || String(row[name]) === $(name).value;
  return data.rows
    .filter((row) => !$("keep").value || row.kept === ($("keep").value === "kept"))
    .filter((row) => ["teacher", "task", "step"].every((name) => same(name, row)))
    .filter((row) => !words || searched(row).includes(words))
    .map((row) => [key(row), row])
    .sort(([a, x], [b, y]) => (a === null) - (b === null) || direction * (a - b) || x.place - y.place)
    .map(([, row]) => row);
}

/* Trajectories: one card each; tokens are rendered only while the card is near the viewport. */
const rowOf = new WeakMap();
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) draw(target);
    else if (target.firstChild) {
      target.style.minHeight = `${target.offsetHeight}px`;
      target.replaceChildren();
    }
  }
}, { rootMargin: "800px" });

function focusable(made, label) {
  made.tabIndex = 0;
  made.setAttribute("role", "group");
  made.setAttribute("aria-label", label);
  return made;
}

function card(row) {
  const article = element("article", undefined, row.kept ? "kept" : "dropped");
  const header = element("p", undefined, "facts");
  header.append(element("b", row.kept ? "kept" : "dropped"));
  const size = `${row.tokens.length} tokens${row.finished ? "" : ", truncated"}`;
  const reason = row.reason || `${data.scored_by}'s mean log-prob ${show(row.score)}`;
  const facts = [reason, row.reward === null ? "" : `reward ${show(row.reward)}`, size, `teacher ${row.teacher}`];
  facts.push(row.task && row.task !== row.teacher ? `task ${row.task}` : "", `step ${row.step}`, `group ${row.group}`);
  header.append(...facts.filter(Boolean).map((fact) => element("span", fact)));
  const tokens = element("div", undefined, "tokens");
  rowOf.set(tokens, row);
  tokens.style.minHeight = `${1.75 * Math.ceil(row.tokens.length / 80)}em`;
  focusable(tokens, "response, token by token");
  const prompt = focusable(element("div", row.prompt, "prompt"), "prompt");
  article.append(header, prompt, tokens);
  near.observe(tokens);
  return article;
}

function draw(tokens) {
  const row = rowOf.get(tokens), quantity = quantities.get($("quantity").value), values = decoded(row, quantity.name);
  tokens.replaceChildren(...row.tokens.map((place, index) => {
    const text = data.texts[place];
    const token = element("i", text === "" ? "·" : text.replaceAll("\n", "⏎\n"), text === "" ? "whole" : "");
    const away = values ? (values[index] - quantity.centre) / quantity.range : NaN;
    if (away) {
      token.classList.add(away > 0 ? "more" : "less");
      token.style.setProperty("--a", Math.min(1, Math.abs(away)).toFixed(3));
    }
    return token;
  }));
  tokens.style.minHeight = "";
}

/* Legend and tooltip. */
function legend() {
  const quantity = quantities.get($("quantity").value), { centre, range } = quantity;
  const values = data.rows.map((row) => decoded(row, quantity.name)).filter(Boolean);
  const any = (test) => values.some((of) => of.some(test));
  const less = any((value) => value < centre), more = any((value) => value > centre);
  const [low, high] = [less ? centre - range : centre, more ? centre + range : centre];
  const colour = (name) => `rgb(var(--${name}) / var(--full))`;
  const stops = [less ? colour("less") : "", "transparent", more ? colour("more") : ""].filter(Boolean);
  $("ramp").style.background = `linear-gradient(90deg, ${stops.length > 1 ? stops.join(", ") : "transparent, transparent"})`;
  $("low").textContent = (less ? "≤ " : "") + show(low);
  $("high").textContent = (more ? "≥ " : "") + show(high);
  $("meaning").textContent = `${quantity.label}: ${quantity.meaning}; no colour at ${show(centre)}` +
    (less && more ? ", underlined above, dotted below" : "");
}

let pinned = null;
function showTip(token) {
  const tokens = token.parentElement, row = rowOf.get(tokens), tip = $("tip");
  const index = [...tokens.children].indexOf(token), table = element("table");
  for (const [name, quantity] of quantities) {
    const values = decoded(row, name), line = element("tr", undefined, name === $("quantity").value ? "now" : "");
    const given = values && !(Number.isNaN(values[index]) && !row.kept);
    line.append(element("td", quantity.label), element("td", given ? show(values[index]) : row.kept ? "–" : "dropped"));
    table.append(line);
  }
  const title = element("p");
  title.append(element("code", JSON.stringify(data.texts[row.tokens[index]]).slice(1, -1) || "part of a character"));
  tip.replaceChildren(title, element("p", `token ${index + 1} of ${row.tokens.length}`), table);
  tip.hidden = false;
  const box = token.getBoundingClientRect(), below = box.bottom + 10 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - tip.offsetHeight - 8)}px`;
}

function pin(token) {
  pinned?.classList.remove("mark");
  pinned = token === pinned ? null : token;
  pinned?.classList.add("mark");
  if (pinned) showTip(pinned);
  else $("tip").hidden = true;
}

const tokenAt = (event) => event.target.closest?.(".tokens i") || null;
document.addEventListener("pointerover", (event) => {
  if (pinned || event.pointerType === "touch") return;
  if (tokenAt(event)) showTip(tokenAt(event));
  else $("tip").hidden = true;
});
document.addEventListener("click", (event) => (tokenAt(event) || pinned) && pin(tokenAt(event)));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") pin(null);
  const next = { ArrowLeft: pinned?.previousSibling, ArrowRight: pinned?.nextSibling }[event.key];
  const list = event.target;
  if (event.key === "ArrowRight" && list.classList.contains("tokens") && pinned?.parentElement !== list) {
    event.preventDefault();
    pin(list.firstElementChild);
    return;
  }
  if (!next || (list !== document.body && list !== pinned.parentElement)) return;
  event.preventDefault();
  pin(next);
});

/* Page. */
function list() {
  pin(null);
  near.disconnect();
  const rows = chosen();
  $("list").replaceChildren(...rows.map(card));
  $("count").textContent = `${rows.length} of ${data.rows.length}`;
}

function recolour() {
  legend();
  if (["most", "least"].includes($("sort").value)) list();
  else document.querySelectorAll(".tokens").forEach((tokens) => tokens.firstChild && draw(tokens));
}

data.rows.forEach((row, place) => Object.assign(row, { place }));
fill($("quantity"), data.quantities.map((quantity) => [quantity.name, quantity.label]));
const useless = data.rows.some((row) => row.reward !== null) ? [] : ["reward"];
fill($("sort"), Object.entries(SORTS).filter(([name]) => !useless.includes(name)).map(([name, [text]]) => [name, text]));
for (const name of ["teacher", "task", "step"]) fill($(name), values(name));
let waiting = 0;
$("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(list, 200); });
for (const name of ["sort", "keep", "teacher", "task", "step"]) $(name).addEventListener("change", list);
$("quantity").addEventListener("change", recolour);
$("tools").addEventListener("submit", (event) => event.preventDefault());
legend();
list();
