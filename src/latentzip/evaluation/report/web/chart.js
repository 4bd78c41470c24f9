"use strict";
// Rate and quality: curves that answer to the pointer, and what each codec saves against another.

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw) || raw;
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
    for (const m of [1, 2, 5]) { const v = m * 10 ** p; if (v >= low * 0.999 && v <= high * 1.001) found.push(v); }
  return found.length > 1 ? found : ticks(low, high, 5);
}

function curvesSection(part) {
  const colour = colours(part);
  const state = { metric: part.metrics[0], input: "", scale: "log", hidden: new Set(), near: null };
  const inputs = [...new Map(part.rows.map((r) => [r.input_id, r.input])).entries()];
  const node = section(
    "Rate and quality", "Up and to the left is better. Point at a curve for its numbers; click a name to hide it.",
    part.metrics.length > 1 ? segmented(part.metrics.map((m) => [m.name, m.label]), state.metric.name,
      (name) => { state.metric = part.metrics.find((m) => m.name === name); draw(); }, "Metric") : null,
    inputs.length > 1 ? picker("of", [["", `mean of ${inputs.length}`], ...inputs], "", (id) => { state.input = id; draw(); }) : null,
    segmented([["log", "log"], ["linear", "linear"]], "log", (scale) => { state.scale = scale; draw(); }, "Scale of rates"),
  );
  const panel = el("div.panel.curves"), tip = el("div.tip", { hidden: true, role: "status" });
  let svg = el("svg");
  const legend = el("div.legend");
  for (const codec of part.codecs) {
    const chip = el(codec.kind === "conventional" ? "button.chip.other" : "button.chip", {
      type: "button", "aria-pressed": true, style: `--c:${colour[codec.name]}`,
      onclick: () => {
        const off = !state.hidden.delete(codec.name);
        if (off) state.hidden.add(codec.name);
        chip.setAttribute("aria-pressed", !off);
        draw();
      },
      onpointerenter: () => mute(codec.name), onpointerleave: () => mute(null),
    }, el("i"), codec.name);
    legend.append(chip);
  }
  panel.append(svg, tip, legend);
  node.append(panel);
  let drawn = [];

  function points() {
    const rows = state.input ? part.rows.filter((r) => r.input_id === state.input && !r.error) : part.averages;
    const key = state.metric.name + "_curve";
    return part.codecs.filter((c) => !state.hidden.has(c.name)).map((codec) => ({
      codec, points: rows.filter((r) => r.codec === codec.name && r[key] !== null && r[key] !== undefined && r[part.rate] > 0)
        .map((row) => ({ row, x: row[part.rate], y: row[key] })).sort((a, b) => a.x - b.x),
    })).filter((s) => s.points.length);
  }

  function draw() {
    const series = points();
    const width = Math.max(320, panel.clientWidth - 28), phone = width < 560;
    const height = phone ? 320 : Math.min(460, width * 0.46);
    const box = { left: 46, right: phone ? 14 : 120, top: 30, bottom: 44 };
    const all = series.flatMap((s) => s.points);
    const fresh = el("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${state.metric.curveLabel} over ${part.rateLabel}` });
    svg.replaceWith(fresh);
    svg = fresh;
    hide();
    if (!all.length) {
      svg.append(el("text.axis", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No curve for this metric: its values are undefined or infinite."));
      drawn = [];
      return;
    }
    let [x0, x1] = [Math.min(...all.map((p) => p.x)), Math.max(...all.map((p) => p.x))];
    let [y0, y1] = [Math.min(...all.map((p) => p.y)), Math.max(...all.map((p) => p.y))];
    const log = state.scale === "log";
    if (log) { const spread = Math.max(Math.log(x1 / x0), 0.3) * 0.05; x0 *= Math.exp(-spread); x1 *= Math.exp(spread); }
    else { x1 += (x1 - x0) * 0.04 || x1 * 0.1; x0 = 0; }
    const pad = (y1 - y0) * 0.06 || Math.max(Math.abs(y0) * 0.05, 0.01);
    y0 -= pad; y1 += pad;
    const f = log ? Math.log : (v) => v;
    const X = (v) => box.left + (f(v) - f(x0)) / (f(x1) - f(x0)) * (width - box.left - box.right);
    const up = state.metric.higher ? 1 : -1;
    const Y = (v) => { const t = (v - y0) / (y1 - y0); return height - box.bottom - (up > 0 ? t : 1 - t) * (height - box.top - box.bottom); };
    const ys = ticks(y0, y1, phone ? 5 : 7);
    const places = [0, 1, 2, 3, 4].find((d) => ys.every((v) => Math.abs(v * 10 ** d - Math.round(v * 10 ** d)) < 1e-6)) ?? 5;
    for (const v of ys) {
      svg.append(el("line.gridline", { x1: box.left, x2: width - box.right, y1: Y(v), y2: Y(v) }));
      svg.append(el("text.axis", { x: box.left - 9, y: Y(v) + 4, "text-anchor": "end" }, v.toFixed(places).replace("-", "−")));
    }
    let xs = log ? logTicks(x0, x1) : ticks(x0, x1, phone ? 4 : 8);
    if (phone && xs.length > 6) xs = xs.filter((_, i) => i % 2 === 0);
    for (const v of xs) svg.append(el("text.axis", { x: X(v), y: height - box.bottom + 19, "text-anchor": "middle" }, String(Number(v.toPrecision(3)))));
    svg.append(el("line.gridline", { x1: box.left, x2: width - box.right, y1: height - box.bottom, y2: height - box.bottom }));
    svg.append(el("text.axis.name", { x: box.left - 36, y: 14 }, state.metric.curveLabel + (up > 0 ? "" : " (less is better)")));
    svg.append(el("text.axis.name", { x: width - box.right, y: height - 6, "text-anchor": "end" }, part.rateLabel));
    const ends = [];
    for (const { codec, points: p } of series) {
      const other = codec.kind === "conventional", c = colour[codec.name];
      const path = p.map((q, i) => `${i ? "L" : "M"}${X(q.x).toFixed(1)} ${Y(q.y).toFixed(1)}`).join("");
      if (p.length > 1) svg.append(el(other ? "path.line.other" : "path.line", { d: path, style: `stroke:${c}`, "data-codec": codec.name }));
      for (const q of p) {
        const r = p.length === 1 ? 6 : other ? 3.2 : 4;
        svg.append(el("circle.dot", { cx: X(q.x), cy: Y(q.y), r, style: `fill:${c}`, "data-codec": codec.name }));
      }
      ends.push({ codec: codec.name, x: X(p[p.length - 1].x) + 10, y: Y(p[p.length - 1].y) });
    }
    if (!phone) labels(ends, height - box.bottom);
    drawn = series.flatMap((s) => s.points.map((q) => ({ codec: s.codec.name, row: q.row, x: X(q.x), y: Y(q.y), line: s.points.map((o) => [X(o.x), Y(o.y)]) })));
    svg.addEventListener("pointermove", (event) => follow(event, width));
    svg.addEventListener("pointerdown", (event) => follow(event, width));
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); }); // after a tap it stays
  }

  function labels(ends, bottom) {
    ends.sort((a, b) => a.y - b.y);
    for (let i = 1; i < ends.length; i++)
      if (ends[i].y < ends[i - 1].y + 15 && Math.abs(ends[i].x - ends[i - 1].x) < 110) ends[i].y = ends[i - 1].y + 15;
    for (const e of ends) svg.append(el("text.tag", { x: e.x, y: Math.min(e.y, bottom) + 4, style: `fill:${colour[e.codec]}`, "data-codec": e.codec }, e.codec));
  }

  function mute(name) {
    for (const mark of svg.querySelectorAll("[data-codec]")) mark.classList.toggle("muted", name !== null && mark.dataset.codec !== name);
  }

  function hide() { tip.hidden = true; state.near = null; if (svg) mute(null); }

  function follow(event, width) {
    const frame = svg.getBoundingClientRect(), k = width / frame.width;
    const x = (event.clientX - frame.left) * k, y = (event.clientY - frame.top) * k;
    let best = null, least = 60 ** 2;
    for (const p of drawn) { const d = (p.x - x) ** 2 + (p.y - y) ** 2; if (d < least) { least = d; best = p; } }
    if (!best) return hide();
    if (best !== state.near) {
      state.near = best;
      mute(best.codec);
      const row = best.row, facts = el("dl");
      const add = (name, value) => facts.append(el("dt", {}, name), el("dd", {}, value));
      add(part.rateLabel, number(row[part.rate]));
      for (const m of part.metrics) if (m.name in row) add(m.label, row[m.name] === null ? "–" : `${number(row[m.name])} ${m.unit}`);
      add("encode", `${number(row.encode_speed, 3)} ${part.speedUnit}`);
      add("decode", `${number(row.decode_speed, 3)} ${part.speedUnit}`);
      tip.replaceChildren(el("b", { style: `color:${colour[best.codec]}` }, best.codec, " ", el("span", {}, row.setting || "")), facts);
      tip.hidden = false;
    }
    const px = best.x / k + 14, py = best.y / k + 14, w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.left = `${Math.max(4, px + w + 20 > panel.clientWidth ? px - w - 10 : px + 18)}px`;
    tip.style.top = `${Math.max(4, Math.min(py - h / 2, panel.clientHeight - h - 8))}px`;
  }

  new ResizeObserver(draw).observe(panel);
  return node;
}

function savingsSection(part) {
  const anchors = Object.keys(part.comparisons).filter((a) => Object.keys(part.comparisons[a]).length);
  if (!anchors.length) return null;
  const colour = colours(part);
  const state = { anchor: anchors.includes(part.anchor) ? part.anchor : anchors[0], metric: null };
  const measured = () => part.metrics.filter((m) => part.comparisons[state.anchor][m.name]);
  state.metric = measured()[0];
  const node = section(
    "What it saves", "Bits needed at equal quality (BD-rate), over the range both codecs cover. Less than zero: smaller files.",
    measured().length > 1 ? segmented(measured().map((m) => [m.name, m.label]), state.metric.name, (name) => { state.metric = part.metrics.find((m) => m.name === name); draw(); }, "Metric") : null,
    picker("against", anchors.map((a) => [a, a]), state.anchor, (a) => { state.anchor = a; draw(); }),
  );
  const bars = el("div.panel.bars");
  node.append(bars);

  function draw() {
    const found = part.comparisons[state.anchor][state.metric.name] || {};
    const rates = Object.entries(found).filter(([, v]) => "bd_rate_pct" in v).map(([c, v]) => [c, v.bd_rate_pct]).sort((a, b) => a[1] - b[1]);
    const single = Object.entries(found).filter(([, v]) => "gain" in v);
    const low = Math.min(0, ...rates.map((r) => r[1])), high = Math.max(0, ...rates.map((r) => r[1])), span = high - low || 1;
    const little = (codec) => found[codec].overlap < 0.5;
    bars.replaceChildren();
    for (const [codec, value] of rates) {
      const from = (Math.min(0, value) - low) / span * 100, size = Math.abs(value) / span * 100;
      bars.append(
        el("span", {}, codec),
        el("div.track", {}, el("div.zero", { style: `left:${-low / span * 100}%` }), el("div.bar", { style: `left:${from}%;width:${size}%;--c:${colour[codec]}` })),
        el(value < 0 ? "span.value.good" : "span.value.bad", {}, `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)} %${little(codec) ? " ~" : ""}`));
    }
    if (rates.some(([codec]) => little(codec))) bars.append(el("p.note", {}, "~ The curves share less than half of the shorter one's range of quality: an indication only."));
    const unit = /dB/.test(state.metric.unit + state.metric.curveLabel) ? "dB" : state.metric.unit;
    if (single.length)
      bars.append(el("p.note", {}, "With one rate only, quality at equal rate: " + single.map(([c, v]) => `${c} ${v.gain < 0 ? "−" : "+"}${Math.abs(v.gain).toFixed(2)} ${unit}`.trim()).join(", ") + "."));
    if (!rates.length && !single.length) bars.append(el("p.note", {}, `No codec shares a range of quality with ${state.anchor} in ${state.metric.label}.`));
  }
  draw();
  return node;
}
