"use strict";
// Versions of a sound that are switched without losing the place, over their spectrograms.

function playerSection(part) {
  if (!part.samples.length) return null;
  const colour = colours(part);
  const node = section("Listening", "Choose a version while it plays: the place is kept. Click into the spectrogram to jump.");
  for (const sample of part.samples) node.append(player(part, sample, colour));
  return node;
}

function player(part, sample, colour) {
  const versions = [{ name: "original", ...sample.original }, ...sample.decoded.map((d) => ({ name: join(d.codec, d.setting), ...d }))];
  const state = { chosen: versions[0], view: "sound" };
  const audio = el("audio", { preload: "auto" });
  const canvas = el("canvas"), head = el("div.head2"), time = el("span.time"), strip = el("canvas.strip", { hidden: true });
  const hint = el("span.time");
  const play = el("button.icon.play", { type: "button", onclick: () => audio.paused ? audio.play() : audio.pause() }, "Play");
  const spec = el("div.spec", { onclick: (event) => { const f = spec.getBoundingClientRect(); audio.currentTime = (event.clientX - f.left) / f.width * sample.seconds; tick(); } }, canvas, head);
  const facts = (v) => {
    const row = part.rows.find((r) => r.input_id === sample.id && r.codec === v.codec && r.setting === v.setting);
    return row ? `${number(row[part.rate], 3)} kbit/s` : `${(sample.rate / 1000).toLocaleString("en")} kHz, ${sample.channels > 1 ? `${sample.channels} channels` : "mono"}`;
  };
  const buttons = versions.map((v) => el("button", { type: "button", style: v.codec ? `--c:${colour[v.codec]}` : "", onclick: () => choose(v) }, v.name, el("small", {}, facts(v))));
  const excerpt = sample.seconds < sample.full - 0.05 ? ` (${duration(sample.start)} to ${duration(sample.start + sample.seconds)} of ${duration(sample.full)})` : "";

  async function pixels(v) {
    if (!v.level) {
      const image = new Image();
      image.src = v.spectrum;
      await image.decode();
      const off = el("canvas");
      off.width = image.width; off.height = image.height;
      const context = off.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      v.level = context.getImageData(0, 0, image.width, image.height);
    }
    return v.level;
  }

  async function draw() {
    const v = state.chosen, own = await pixels(v), first = await pixels(versions[0]);
    if (v !== state.chosen) return;
    canvas.width = own.width; canvas.height = own.height;
    const out = canvas.getContext("2d").createImageData(own.width, own.height);
    for (let i = 0; i < own.data.length; i += 4) {
      // 255 steps are 80 dB; an error of 20 dB is white hot
      const t = state.view === "sound" ? own.data[i] / 255 : Math.abs(own.data[i] - first.data[i]) * 80 / 255 / 20;
      const [r, g, b] = heat(t);
      out.data[i] = r; out.data[i + 1] = g; out.data[i + 2] = b; out.data[i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(out, 0, 0);
    drawStrip();
  }

  function drawStrip() {
    const rates = state.chosen.kbps;
    strip.hidden = !rates;
    if (!rates) return;
    const context = strip.getContext("2d"), k = window.devicePixelRatio || 1, w = strip.width = strip.clientWidth * k, h = strip.height = 34 * k;
    const top = Math.max(...rates), step = state.chosen.step, style = getComputedStyle(node);
    context.fillStyle = style.getPropertyValue("--accent");
    rates.forEach((rate, i) => {
      const x0 = (i * step - sample.start) / sample.seconds * w, x1 = ((i + 1) * step - sample.start) / sample.seconds * w;
      context.fillRect(x0, h - rate / top * (h - 2), Math.max(1, x1 - x0 - 1), rate / top * (h - 2));
    });
    strip.title = `rate over time, up to ${number(top, 3)} kbit/s`;
  }

  function choose(v) {
    const at = audio.currentTime || 0, playing = !audio.paused && audio.src;
    state.chosen = v;
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", versions[i] === v));
    audio.src = v.uri;
    audio.currentTime = at;
    if (playing) audio.play();
    draw();
  }

  function tick() {
    head.style.left = `${100 * (audio.currentTime || 0) / sample.seconds}%`;
    time.textContent = `${duration(audio.currentTime || 0)} of ${duration(sample.seconds)}`;
    if (!audio.paused) requestAnimationFrame(tick);
  }
  audio.addEventListener("play", () => { play.textContent = "Pause"; for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause(); tick(); });
  audio.addEventListener("pause", () => { play.textContent = "Play"; });
  audio.addEventListener("ended", () => { play.textContent = "Play"; });
  audio.addEventListener("seeked", tick);
  const node = el("div.panel.player", { style: "margin-bottom:16px" },
    el("div.row", {}, el("strong", {}, sample.input), el("span.time", {}, excerpt)),
    spec, strip,
    el("div.row", {}, play, time, segmented([["sound", "spectrogram"], ["error", "error"]], "sound", (view) => { state.view = view; hint.textContent = view === "error" ? "difference of level, up to 20 dB" : ""; draw(); }, "What is shown"), hint),
    el("div.choices", {}, ...buttons), audio);
  new ResizeObserver(drawStrip).observe(node);
  choose(versions[0]);
  tick();
  return node;
}
