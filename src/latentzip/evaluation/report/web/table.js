"use strict";
// All numbers in one table that sorts by any column.

function tableSection(part) {
  const colour = colours(part), several = new Set(part.rows.map((r) => r.input_id)).size > 1;
  const state = { view: several ? "mean" : "rows", sort: null, down: false };
  const failed = part.rows.filter((r) => r.error).length;
  const node = section(
    "Numbers", "Click a heading to sort." + (failed ? ` ${failed} measurement${failed > 1 ? "s" : ""} failed: see the files one by one.` : ""),
    several ? segmented([["mean", "means"], ["rows", "file by file"]], state.view, (view) => { state.view = view; state.sort = null; draw(); }, "Rows") : null,
  );
  const body = el("div.panel.scroll", { tabindex: 0, role: "region", "aria-label": "Table of all measurements" });
  node.append(body);

  function columns() {
    const rows = state.view === "mean" ? part.averages : part.rows, any = (name) => rows.some((r) => r[name] !== null && r[name] !== undefined);
    const list = [["codec", "codec", ""], ["setting", "setting", ""]];
    if (state.view === "rows") list.push(["input", "file", ""], ["num_bytes", "size", "bytes"]);
    list.push([part.rate, part.rate, ""]);
    for (const m of part.metrics) if (any(m.name)) list.push([m.name, m.label, m.unit]);
    list.push(["encode_speed", "encode", part.speedUnit], ["decode_speed", "decode", part.speedUnit]);
    if (any("latent_ratio")) list.push(["latent_ratio", "fewer values", "times"]);
    if (any("peak_mb")) list.push(["peak_mb", "peak memory", "MB"]);
    return list;
  }

  function cell(row, key) {
    if (key === "codec") return el("td", {}, el("i.key", { style: `--c:${colour[row.codec]}` }), row.codec);
    if (key === "setting" || key === "input") return el(key === "input" ? "td.dim" : "td", {}, row[key] || "–");
    if (key === "num_bytes") return el("td", {}, row[key].toLocaleString("en"));
    if (key === "latent_ratio") return el("td", {}, row[key] ? number(1 / row[key], 3) : "–"); // values of the signal / of the latent
    if (key === "peak_mb") return el("td", {}, row[key] ? row[key].toFixed(0) : "–");
    if (key.endsWith("_speed")) return el("td", {}, number(row[key], 3));
    return el("td", {}, row[key] === null && row.lossless ? "lossless" : number(row[key]));
  }

  function draw() {
    const list = columns();
    let rows = state.view === "mean" ? [...part.averages] : [...part.rows];
    if (state.sort) {
      const worth = (r) => { const v = r[state.sort]; return v === null || v === undefined ? (typeof v) : v; };
      rows.sort((a, b) => {
        const [x, y] = [worth(a), worth(b)];
        const missing = (v) => v === "object" || v === "undefined";
        if (missing(x) || missing(y)) return missing(x) - missing(y);
        const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
        return state.down ? -order : order;
      });
    }
    const head = el("tr", {}, ...list.map(([key, label, unit]) => el("th", { scope: "col", "data-key": key, "aria-sort": state.sort === key ? (state.down ? "descending" : "ascending") : null },
      el("button", { type: "button", onclick: () => { state.down = state.sort === key ? !state.down : false; state.sort = key; draw(); } }, el("span", {}, label), unit ? el("small", {}, unit) : null))));
    const lines = rows.map((row, i) => {
      const first = !state.sort && i && rows[i - 1].codec !== row.codec;
      if (row.error) {
        const known = list.filter(([key]) => ["codec", "setting", "input"].includes(key));
        return el("tr", {}, ...known.map(([key]) => cell(row, key)), el("td.error", { colspan: list.length - known.length }, row.error));
      }
      return el(first ? "tr.first" : "tr", {}, ...list.map(([key]) => cell(row, key)));
    });
    const focus = document.activeElement?.closest?.("th")?.dataset.key;
    body.replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...lines)));
    if (focus) body.querySelector(`th[data-key="${CSS.escape(focus)}"] button`)?.focus();
  }
  draw();
  return node;
}
