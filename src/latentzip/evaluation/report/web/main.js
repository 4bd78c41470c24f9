"use strict";
// The page itself: title, parts by modality, how it was measured, light and dark.

const NOUNS = { image: ["picture", "pictures"], audio: ["sound", "sounds"], tensor: ["tensor", "tensors"] };

(function () {
  const about = DATA.about, parts = Object.entries(DATA.modalities);
  const counted = parts.map(([m, p]) => { const n = new Set(p.rows.map((r) => r.input_id)).size; return `${n} ${NOUNS[m][n === 1 ? 0 : 1]}`; });
  const codecs = new Set(parts.flatMap(([, p]) => p.codecs.map((c) => c.name))), rows = parts.reduce((n, [, p]) => n + p.rows.length, 0);
  document.getElementById("title").textContent = headline(parts);
  const date = new Date(about.date).toLocaleDateString("en", { year: "numeric", month: "long", day: "numeric" });
  document.getElementById("lead").textContent = `${counted.join(", ")} · ${codecs.size} codecs · ${rows} measurements of real files · ${date}`;
  const main = document.getElementById("main");
  for (const [modality, part] of parts) {
    if (parts.length > 1) main.append(el("p.modality", {}, NOUNS[modality][1][0].toUpperCase() + NOUNS[modality][1].slice(1)));
    const looks = modality === "audio" ? playerSection : modality === "image" ? viewerSection : () => null;
    for (const make of [curvesSection, savingsSection, looks, tableSection]) {
      const node = make(part);
      if (node) main.append(node);
    }
  }
  footer(about, parts);
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  /** The best saving against the anchor by the first metric, in a sentence. */
  function headline(parts) {
    for (const [, part] of parts) {
      const metric = part.metrics[0], found = part.comparisons[part.anchor]?.[metric.name] || {};
      const rates = Object.entries(found).filter(([c, v]) => "bd_rate_pct" in v && part.codecs.find((k) => k.name === c).kind !== "conventional").sort((a, b) => a[1].bd_rate_pct - b[1].bd_rate_pct);
      if (rates.length) {
        const [codec, { bd_rate_pct: value }] = rates[0];
        return `${codec} needs ${Math.abs(value).toFixed(0)} % ${value < 0 ? "fewer" : "more"} bits than ${part.anchor} at equal ${metric.label}`;
      }
    }
    return `${[...new Set(parts.flatMap(([, p]) => p.codecs.map((c) => c.name)))].slice(0, 4).join(", ")} compared`;
  }

  function footer(about, parts) {
    const conventions = parts.flatMap(([m, p]) => [
      `${p.rateLabel[0].toUpperCase() + p.rateLabel.slice(1)}: the whole file, headers included.`,
      ...p.metrics.filter((x) => x.about).map((x) => `${x.label}: ${x.about}.`)]);
    const list = [
      ...new Set(conventions),
      "Means are arithmetic, over the inputs that a codec coded. BD-rate: piecewise cubic (PCHIP) interpolation of log-rate over quality, over the inputs that both codecs coded.",
      "Speeds: one call each after a warm-up on a small piece, memory to memory, all inputs summed. Peak memory: highest resident size of the whole process meanwhile, libraries included.",
      DATA.leftOut ? `${DATA.leftOut} decoded signals were left out to keep this page below ${DATA.megabytes} MB; their numbers are in the table.` : null,
    ].filter(Boolean);
    const m = about.machine, versions = Object.entries(about.versions).map(([k, v]) => `${k} ${v}`).join(", ");
    document.getElementById("footer").append(
      el("h2", {}, "How this was measured"),
      el("ul", {}, ...list.map((t) => el("li", {}, t))),
      el("p", {}, `${m.cpu}, ${m.cores} cores, ${m.system}; threads: ${about.threads}. latentzip ${about.latentzip}, ${versions}.`));
  }
})();
