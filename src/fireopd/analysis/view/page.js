"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const kinds = new Map(data.kinds.map((kind) => [kind.name, kind]));
const SEPARATOR = "\u0000";

/* Texts become nodes of text, never HTML: what a model has written cannot act. */
function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/* Numbers: float16 in base64, decoded when they are looked at. */
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

function numbers(row, name) {
  row.decoded ??= new Map();
  if (!row.decoded.has(name)) row.decoded.set(name, name in row.numbers ? decode(row.numbers[name]) : null);
  return row.decoded.get(name);
}

function mean(row, name) {
  const values = (numbers(row, name) || []).filter((value) => Number.isFinite(value));
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
  row.text ??= (row.prompt + SEPARATOR + row.pieces.map((place) => data.texts[place]).join("")).toLowerCase();
  return row.text;
}

/* Choices. */
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
  order: ["as given", (row) => row.place, 1],
  best: ["best score", (row) => row.score, -1],
  worst: ["worst score", (row) => row.score, 1],
  reward: ["highest reward", (row) => row.reward, -1],
  longest: ["longest", (row) => row.pieces.length, -1],
  shortest: ["shortest", (row) => row.pieces.length, 1],
  keep: ["dropped first", (row) => Number(row.kept), 1],
  group: ["same prompt together", (row) => row.step * 1e9 + row.group, 1],
  most: ["largest mean of the colour", (row) => mean(row, $("kind").value), -1],
  least: ["smallest mean of the colour", (row) => mean(row, $("kind").value), 1],
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

/* Trajectories: a card each; tokens are drawn while a card is near the window. */
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

function card(row) {
  const article = element("article", undefined, row.kept ? "kept" : "dropped");
  const header = element("header");
  header.append(element("b", row.kept ? "kept" : "dropped"));
  const size = `${row.pieces.length} tokens${row.finished ? "" : ", cut"}`;
  const judged = row.reason || `${data.judge}'s mean log-prob ${show(row.score)}`;
  const facts = [judged, row.reward === null ? "" : `reward ${show(row.reward)}`, size, `teacher ${row.teacher}`];
  facts.push(row.task && row.task !== row.teacher ? `task ${row.task}` : "", `step ${row.step}`, `group ${row.group}`);
  header.append(...facts.filter(Boolean).map((fact) => element("span", fact)));
  const tokens = element("div", undefined, "tokens");
  rowOf.set(tokens, row);
  tokens.style.minHeight = `${1.75 * Math.ceil(row.pieces.length / 80)}em`;
  article.append(header, element("div", row.prompt, "prompt"), tokens);
  near.observe(tokens);
  return article;
}

function draw(tokens) {
  const row = rowOf.get(tokens), kind = kinds.get($("kind").value), values = numbers(row, kind.name);
  tokens.replaceChildren(...row.pieces.map((place, index) => {
    const text = data.texts[place];
    const token = element("i", text === "" ? "·" : text.replaceAll("\n", "⏎\n"), text === "" ? "whole" : "");
    const away = values ? (values[index] - kind.centre) / kind.extent : NaN;
    if (away) {
      token.classList.add(away > 0 ? "more" : "less");
      token.style.setProperty("--a", Math.min(1, Math.abs(away)).toFixed(3));
    }
    return token;
  }));
  tokens.style.minHeight = "";
}

/* The legend, and what a token says. */
function legend() {
  const kind = kinds.get($("kind").value), values = data.rows.map((row) => numbers(row, kind.name)).filter(Boolean);
  const any = (test) => values.some((of) => of.some(test));
  const less = any((value) => value < kind.centre), more = any((value) => value > kind.centre);
  const [low, high] = [less ? kind.centre - kind.extent : kind.centre, more ? kind.centre + kind.extent : kind.centre];
  const colour = (name) => `rgb(var(--${name}) / var(--full))`;
  const stops = [less ? colour("less") : "", "transparent", more ? colour("more") : ""].filter(Boolean);
  $("ramp").style.background = `linear-gradient(90deg, ${stops.length > 1 ? stops.join(", ") : "transparent, transparent"})`;
  $("low").textContent = (less ? "≤ " : "") + show(low);
  $("high").textContent = (more ? "≥ " : "") + show(high);
  $("meaning").textContent = `${kind.label}: ${kind.meaning}; no colour at ${show(kind.centre)}`;
}

let pinned = null;
function tell(token) {
  const tokens = token.parentElement, row = rowOf.get(tokens), tip = $("tip");
  const index = [...tokens.children].indexOf(token), table = element("table");
  for (const [name, kind] of kinds) {
    const values = numbers(row, name), line = element("tr", undefined, name === $("kind").value ? "now" : "");
    const given = values && !(Number.isNaN(values[index]) && !row.kept);
    line.append(element("td", kind.label), element("td", given ? show(values[index]) : row.kept ? "–" : "dropped"));
    table.append(line);
  }
  const title = element("p");
  title.append(element("code", JSON.stringify(data.texts[row.pieces[index]]).slice(1, -1) || "part of a character"));
  tip.replaceChildren(title, element("p", `token ${index + 1} of ${row.pieces.length}`), table);
  tip.hidden = false;
  const box = token.getBoundingClientRect(), below = box.bottom + 10 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - tip.offsetHeight - 8)}px`;
}

function pin(token) {
  pinned?.classList.remove("mark");
  pinned = token === pinned ? null : token;
  pinned?.classList.add("mark");
  if (pinned) tell(pinned);
  else $("tip").hidden = true;
}

const tokenAt = (event) => event.target.closest?.(".tokens i") || null;
document.addEventListener("pointerover", (event) => {
  if (pinned || event.pointerType === "touch") return;
  if (tokenAt(event)) tell(tokenAt(event));
  else $("tip").hidden = true;
});
document.addEventListener("click", (event) => (tokenAt(event) || pinned) && pin(tokenAt(event)));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") pin(null);
  const next = { ArrowLeft: pinned?.previousSibling, ArrowRight: pinned?.nextSibling }[event.key];
  if (!next || event.target !== document.body) return;
  event.preventDefault();
  pin(next);
});

/* Everything together. */
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
fill($("kind"), data.kinds.map((kind) => [kind.name, kind.label]));
const useless = data.rows.some((row) => row.reward !== null) ? [] : ["reward"];
fill($("sort"), Object.entries(SORTS).filter(([name]) => !useless.includes(name)).map(([name, [text]]) => [name, text]));
for (const name of ["teacher", "task", "step"]) fill($(name), values(name));
let waiting = 0;
$("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(list, 200); });
for (const name of ["sort", "keep", "teacher", "task", "step"]) $(name).addEventListener("change", list);
$("kind").addEventListener("change", recolour);
$("tools").addEventListener("submit", (event) => event.preventDefault());
legend();
list();
