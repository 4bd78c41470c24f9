"use strict";
// Small helpers that every part uses: elements, numbers, colours.

const DATA = JSON.parse(document.getElementById("data").textContent);

/** Make an element: el("p.note", {title: "x"}, child, "text"); SVG for tags in SVG_TAGS. */
const SVG_TAGS = new Set(["svg", "g", "path", "line", "circle", "text", "rect"]);
function el(spec, attributes = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = SVG_TAGS.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

/** A number to so many significant digits; a dash where there is none. */
function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2).replace("-", "−");
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(places).replace("-", "−");
}

function bytes(count) {
  for (const [unit, scale] of [["MB", 1e6], ["kB", 1e3]]) if (count >= scale) return `${(count / scale).toFixed(1)} ${unit}`;
  return `${count} B`;
}

function duration(seconds) {
  const s = Math.max(0, seconds);
  return `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;
}

function join(codec, setting) { return setting ? `${codec} ${setting}` : codec; }

/** Every codec's colour, the same in all parts of the page. */
function colours(part) {
  const map = {};
  part.codecs.forEach((codec, i) => { map[codec.name] = `var(--s${i % 10})`; });
  return map;
}

function segmented(options, chosen, choose, label) {
  const group = el("div.seg", { role: "group", "aria-label": label });
  const buttons = options.map(([value, text]) => el("button", { type: "button", "aria-pressed": value === chosen, onclick: () => select(value) }, text));
  function select(value) {
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", options[i][0] === value));
    choose(value);
  }
  buttons.forEach((b, i) => b.setAttribute("aria-pressed", options[i][0] === chosen));
  group.append(...buttons);
  return group;
}

function picker(text, options, chosen, choose) {
  const select = el("select", { onchange: () => choose(select.value), "aria-label": text });
  for (const [value, shown] of options) select.append(el("option", { value, selected: value === chosen }, shown));
  return el("label.pick", {}, el("span", {}, text), select);
}

function section(title, hint, ...controls) {
  const node = el("section");
  const words = el("div", {}, el("h2", {}, title), hint ? el("p.hint", {}, hint) : null);
  node.append(el("div.head", {}, words, controls.length ? el("div.controls", {}, ...controls) : null));
  return node;
}

// black, purple, orange, pale yellow: even in lightness, readable without colour vision
const HEAT = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
function heat(t) {
  const x = Math.min(Math.max(t, 0), 1) * (HEAT.length - 1), i = Math.min(Math.floor(x), HEAT.length - 2), f = x - i;
  return HEAT[i].map((v, c) => Math.round(v + f * (HEAT[i + 1][c] - v)));
}

function heatBar(canvas) {
  canvas.width = 256; canvas.height = 1;
  const context = canvas.getContext("2d"), image = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([...heat(i / 255), 255], 4 * i);
  context.putImageData(image, 0, 0);
  return canvas;
}

/** A grid of the page's data: bytes are square roots, value = top * (byte / 255) ** 2. */
function readGrid(grid) {
  if (!grid.values) {
    const raw = atob(grid.data);
    grid.values = Float32Array.from(raw, (c) => grid.top * (c.charCodeAt(0) / 255) ** 2);
  }
  return grid.values;
}
