"use strict";
// Two versions of a picture under one divider, with zoom and maps of error and rate.

function viewerSection(part) {
  if (!part.samples.length) return null;
  const rowOf = (id, codec, setting) => part.rows.find((r) => r.input_id === id && r.codec === codec && r.setting === setting);
  const state = { sample: part.samples[0], sides: [null, null], map: "", split: 0.5, zoom: 0, x: 0, y: 0 };
  const anyRate = part.samples.some((s) => s.decoded.some((d) => d.rate));
  const choices = [["", "picture"], ["error", "error"], ...(anyRate ? [["rate", "rate"]] : [])];
  const cropped = part.samples.some((s) => s.width < s.full[0] || s.height < s.full[1]);
  const node = section("Side by side", "Drag the divider; zoom with the buttons or by double click, then drag the picture." + (cropped ? " Of large pictures the middle is shown, pixel for pixel." : ""));
  const box = el("div.panel.viewer");
  const stagebox = el("div.stagebox"), panes = ["a", "b"].map((name) => el(`div.pane.${name}`, {}, el("div.stage")));
  const divider = el("div.divider", { role: "slider", tabindex: 0, "aria-label": "Divider between the two versions", "aria-valuemin": 0, "aria-valuemax": 100, "aria-orientation": "horizontal" });
  stagebox.append(...panes, divider);
  const scale = el("div.scale", { hidden: true }), sides = el("div.sides");
  const zoomText = el("span.time"), zoomBy = (k) => () => setZoom(state.zoom * k);
  const bar = el("div.bar2", {},
    el("div.controls", {},
      part.samples.length > 1 ? picker("picture", part.samples.map((s, i) => [String(i), s.input]), "0", (i) => { state.sample = part.samples[i]; open(); }) : null,
      segmented(choices, "", (map) => { state.map = map; paint(); }, "What is shown")),
    el("div.controls", {},
      el("button.icon", { type: "button", onclick: zoomBy(1 / 2), "aria-label": "Zoom out" }, "−"),
      el("button.icon", { type: "button", onclick: zoomBy(2), "aria-label": "Zoom in" }, "+"),
      el("button.icon", { type: "button", onclick: () => setZoom(pixel()) }, "1 : 1"),
      el("button.icon", { type: "button", onclick: () => fit() }, "fit")));
  box.append(bar, stagebox, scale, sides);
  node.append(box);

  function open() {
    const s = state.sample, list = [{ codec: "original", setting: "" }, ...s.decoded];
    const r = (d) => rowOf(s.id, d.codec, d.setting)[part.rate];
    const rates = s.decoded.map(r).sort((a, b) => a - b), middle = rates[Math.floor(rates.length * 0.4)] || 1;
    const apart = (a, b) => Math.abs(Math.log(a / b));
    const own = part.codecs.find((c) => c.kind !== "conventional" && s.decoded.some((d) => d.codec === c.name))?.name ?? s.decoded.at(-1)?.codec;
    const rival = part.anchor !== own && s.decoded.some((d) => d.codec === part.anchor) ? part.anchor : s.decoded.find((d) => d.codec !== own)?.codec;
    // to begin with: the two settings of nearly the same rate, not far from the middle
    const pairs = s.decoded.filter((d) => d.codec === rival).flatMap((a) => s.decoded.filter((d) => d.codec === own).map((b) => [a, b, apart(r(a), r(b)) + 0.3 * apart(r(b), middle)]));
    pairs.sort((a, b) => a[2] - b[2]);
    state.sides = pairs.length ? pairs[0].slice(0, 2) : [list[0], list.at(-1)];
    sides.replaceChildren(...[0, 1].map((i) => {
      const options = list.map((d, n) => [String(n), d === list[0] ? "original" : `${join(d.codec, d.setting)} · ${number(r(d), 3)} ${part.rate}`]);
      const facts = el("div.facts");
      const pick = picker(i ? "right" : "left", options, String(list.indexOf(state.sides[i])), (n) => { state.sides[i] = list[n]; show(i); paint(); });
      return el("div.side", {}, pick, facts);
    }));
    [0, 1].forEach(show);
    fit();
    paint();
  }

  function show(i) {
    const s = state.sample, d = state.sides[i], stage = panes[i].firstChild;
    stage.replaceChildren(el("img", { src: d.uri || s.original, alt: d.uri ? `${s.input} through ${join(d.codec, d.setting)}` : `${s.input}, original`, draggable: "false" }), el("canvas"));
    const facts = el("dl"), row = d.uri && rowOf(s.id, d.codec, d.setting);
    const add = (name, value) => facts.append(el("dt", {}, name), el("dd", {}, value));
    if (row) {
      add("size", bytes(row.num_bytes));
      add(part.rateLabel, number(row[part.rate], 3));
      for (const m of part.metrics) if (row[m.name] !== undefined) add(m.label, row[m.name] === null ? (row.lossless ? "lossless" : "–") : `${number(row[m.name])} ${m.unit}`);
    } else add("size", `${s.full[0]} × ${s.full[1]}`);
    sides.children[i].querySelector(".facts").replaceChildren(facts);
  }

  /** Paint the chosen map over both sides, on one scale. */
  function paint() {
    const grids = state.sides.map((d) => (state.map && d[state.map]) || null), s = state.sample;
    const high = Math.max(...grids.map((g) => { if (!g) return 0; const v = Float32Array.from(readGrid(g)).sort(); return v[Math.floor(v.length * 0.995)]; }), 1e-6);
    panes.forEach((pane, i) => {
      const canvas = pane.querySelector("canvas"), g = grids[i];
      canvas.hidden = !g;
      canvas.style.display = g ? "" : "none";
      if (!g) return;
      const values = readGrid(g), context = canvas.getContext("2d");
      canvas.width = g.w; canvas.height = g.h;
      const image = context.createImageData(g.w, g.h);
      values.forEach((v, n) => image.data.set([...heat(v / high), 255], 4 * n));
      context.putImageData(image, 0, 0);
      const [dx, dy] = g.shift || [0, 0];
      Object.assign(canvas.style, { inset: "auto", left: `${-dx / s.width * 100}%`, top: `${-dy / s.height * 100}%`, width: `${g.w * g.side / s.width * 100}%`, height: `${g.h * g.side / s.height * 100}%` });
    });
    scale.hidden = !state.map;
    if (state.map) {
      const unit = state.map === "error" ? "root mean square error of 8 × 8 pixels, in 8-bit steps" : "bits per pixel";
      const silent = state.map === "rate" && grids.some((g, i) => !g && state.sides[i].uri) ? "; conventional files do not say" : "";
      scale.replaceChildren("0", heatBar(el("canvas")), number(high, 2), el("span", {}, unit + silent));
    }
  }

  function fit() { state.zoom = 0; state.x = state.y = 0; place(); }
  const tallest = () => Math.max(300, window.innerHeight * 0.8);
  function least() { return Math.min(stagebox.clientWidth / state.sample.width, tallest() / state.sample.height); } // all of it is seen
  const pixel = () => 1 / (window.devicePixelRatio || 1);
  function setZoom(zoom, cx = stagebox.clientWidth / 2, cy = stagebox.clientHeight / 2) {
    const before = state.zoom || least(), after = Math.min(Math.max(zoom || before, Math.min(least(), pixel())), 32);
    state.x = cx - (cx - state.x) * after / before;
    state.y = cy - (cy - state.y) * after / before;
    state.zoom = after;
    place();
  }

  function place() {
    const s = state.sample, width = stagebox.clientWidth;
    stagebox.style.height = `${Math.round(Math.min(width * s.height / s.width, tallest()))}px`;
    const height = stagebox.clientHeight, zoom = state.zoom = state.zoom || least();
    const kept = (at, room, size) => size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, at)); // small: centred
    state.x = kept(state.x, width, s.width * zoom);
    state.y = kept(state.y, height, s.height * zoom);
    for (const pane of panes) {
      const stage = pane.firstChild;
      Object.assign(stage.style, { width: `${s.width}px`, height: `${s.height}px`, transform: `translate(${state.x}px,${state.y}px) scale(${zoom})` });
      stage.classList.toggle("sharp", zoom * (window.devicePixelRatio || 1) >= 2);
    }
    stagebox.style.setProperty("--split", `${state.split * width}px`);
    stagebox.dataset.zoom = zoom.toFixed(3);
    divider.setAttribute("aria-valuenow", Math.round(100 * state.split));
  }

  function split(clientX) {
    const frame = stagebox.getBoundingClientRect();
    state.split = Math.min(1, Math.max(0, (clientX - frame.left) / frame.width));
    place();
  }
  divider.addEventListener("pointerdown", (event) => { divider.setPointerCapture(event.pointerId); event.stopPropagation(); event.preventDefault(); divider.focus({ preventScroll: true }); });
  divider.addEventListener("pointermove", (event) => { if (divider.hasPointerCapture(event.pointerId)) split(event.clientX); });
  divider.addEventListener("dblclick", (event) => event.stopPropagation());
  divider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    state.split = Math.min(1, Math.max(0, state.split + step));
    place();
  });
  let from = null;
  stagebox.addEventListener("pointerdown", (event) => {
    if (event.button || state.sample.width * state.zoom <= stagebox.clientWidth + 1 && state.sample.height * state.zoom <= stagebox.clientHeight + 1) return;
    from = [event.clientX - state.x, event.clientY - state.y];
    stagebox.setPointerCapture(event.pointerId);
    stagebox.classList.add("moving");
  });
  stagebox.addEventListener("pointermove", (event) => { if (from) { state.x = event.clientX - from[0]; state.y = event.clientY - from[1]; place(); } });
  for (const end of ["pointerup", "pointercancel"]) stagebox.addEventListener(end, () => { from = null; stagebox.classList.remove("moving"); });
  stagebox.addEventListener("dblclick", (event) => {
    const frame = stagebox.getBoundingClientRect();
    setZoom(state.zoom > least() * 3.9 ? least() : state.zoom * 2, event.clientX - frame.left, event.clientY - frame.top);
  });
  stagebox.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const frame = stagebox.getBoundingClientRect();
    setZoom(state.zoom * Math.exp(-event.deltaY / 200), event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });
  open();
  new ResizeObserver(() => { state.zoom = 0; place(); }).observe(box);
  return node;
}
