"""The signals that a report lets one look at and listen to, as data URIs within a bound."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..coders import Setting
from ..metrics.sound import mel_power
from ..signals import RATE_OF, Signal
from . import maps

if TYPE_CHECKING:
    from ..result import Results, Row

_SIDE = 768  # pictures are cropped to this
_SECONDS = 10.0  # sounds to this


class Budget:
    """Counts bytes as they will stand in the file; base64 needs four for three."""

    def __init__(self, megabytes: float) -> None:
        self.left = megabytes * 1e6
        self.left_out = 0

    def take(self, data: bytes) -> str | None:
        """base64 of the data; None where it is too much."""
        size = 4 * -(-len(data) // 3)
        if size > self.left:
            self.left_out += 1
            return None
        self.left -= size
        return base64.b64encode(data).decode()


def samples(result: Results, modality: str, budget: Budget) -> list[dict[str, Any]]:
    """Originals and decoded signals of the inputs that were kept, the most telling settings first."""
    rows = [r for r in result.rows if r["modality"] == modality and "error" not in r]
    inputs = [i for i in dict.fromkeys(r["input_id"] for r in rows) if i in result.kept]
    make = {"image": _picture, "audio": _sound}.get(modality)
    if make is None or not inputs:
        return []
    found = [make(result, result.signal(i)) for i in inputs]
    ready = [sample for sample in found if sample.add_original(budget)]
    orders = [list(_by_interest([r for r in rows if r["input_id"] == s.signal.digest], modality)) for s in ready]
    # round by round, so that a bound that is reached cuts every input alike
    for place in range(max((len(o) for o in orders), default=0)):
        for sample, order in zip(ready, orders):
            if place < len(order):
                sample.add(order[place], budget)
    return [sample.plain(rows) for sample in ready]


def _by_interest(rows: list[Row], modality: str) -> Iterator[Row]:
    """Rows of one input: at low, middle and high rates the nearest of every codec; then the others."""
    rate = RATE_OF[modality]
    seen: set[tuple[str, str]] = set()
    codecs: dict[str, list[Row]] = {}
    for row in rows:
        if not row["lossless"]:
            codecs.setdefault(row["codec"], []).append(row)
    lossy = sorted(r[rate] for part in codecs.values() for r in part)
    targets = [float(np.quantile(lossy, q)) for q in (0.4, 0.15, 0.75)] if lossy else []
    chosen = [min(part, key=lambda r: abs(np.log(r[rate] / t))) for t in targets for part in codecs.values()]
    for row in [*chosen, *(r for part in codecs.values() for r in part)]:
        if (key := (row["codec"], row["setting"])) not in seen:
            seen.add(key)
            yield row


class _Sample:
    def __init__(self, result: Results, signal: Signal) -> None:
        self.result, self.signal = result, signal
        self.head: dict[str, Any] = {"input": signal.name, "id": signal.digest}
        self.decoded: list[dict[str, Any]] = []

    def add_original(self, budget: Budget) -> bool:
        raise NotImplementedError

    def add(self, row: Row, budget: Budget) -> None:
        raise NotImplementedError

    def plain(self, rows: list[Row]) -> dict[str, Any]:
        """For JSON; decoded signals in the order of the rows."""
        place = {(r["codec"], r["setting"]): n for n, r in enumerate(rows) if r["input_id"] == self.signal.digest}
        self.decoded.sort(key=lambda d: place[d["codec"], d["setting"]])
        return self.head | {"decoded": self.decoded}


class _picture(_Sample):
    """The middle of a picture, aligned to rate tiles."""

    def __init__(self, result: Results, signal: Signal) -> None:
        super().__init__(result, signal)
        h, w = signal.data.shape[:2]
        self.top = (h - min(h, _SIDE)) // 2 // maps.TILE * maps.TILE
        self.left = (w - min(w, _SIDE)) // 2 // maps.TILE * maps.TILE
        part = self._crop(signal.data)
        self.head |= {"width": part.shape[1], "height": part.shape[0], "full": [w, h], "at": [self.left, self.top]}

    def _crop(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[self.top : self.top + _SIDE, self.left : self.left + _SIDE]

    def _embed(self, pixels: np.ndarray, budget: Budget) -> str | None:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self._crop(pixels))).save(
            buffer, "WEBP", lossless=True, quality=40, method=2
        )
        text = budget.take(buffer.getvalue())
        return f"data:image/webp;base64,{text}" if text else None

    def add_original(self, budget: Budget) -> bool:
        self.head["original"] = self._embed(self.signal.data, budget)
        return self.head["original"] is not None

    def add(self, row: Row, budget: Budget) -> None:
        data, decoded = self.result.decoded(row)
        uri = self._embed(decoded, budget)
        if uri is None:
            return
        entry = {"codec": row["codec"], "setting": row["setting"], "uri": uri}
        entry["error"] = grid(maps.error_blocks(self._crop(self.signal.data), self._crop(decoded)), maps.BLOCK)
        setting = Setting(row["setting"], row["value"])
        if tiles := maps.rate_tiles(self.result.coder(row["codec"]), data, setting, self.signal):
            values, side = tiles
            h, w = self.head["height"], self.head["width"]
            y, x = self.top // side, self.left // side
            entry["rate"] = grid(values[y : y - (-h // side) + 1, x : x - (-w // side) + 1], side)
            entry["rate"]["shift"] = [self.left - x * side, self.top - y * side]
        self.decoded.append(entry)


def grid(values: np.ndarray, side: int) -> dict[str, Any]:
    """A grid of values >= 0 as bytes of their square roots: value = top * (byte / 255) ** 2."""
    top = float(values.max()) or 1.0
    data = np.round(255 * np.sqrt(values / top)).astype(np.uint8)
    return {
        "w": values.shape[1], "h": values.shape[0], "side": side, "top": round(top, 6),
        "data": base64.b64encode(data.tobytes()).decode(),
    }  # fmt: skip


class _sound(_Sample):
    """Ten seconds from the middle of a sound."""

    def __init__(self, result: Results, signal: Signal) -> None:
        super().__init__(result, signal)
        count = min(len(signal.data), round(_SECONDS * signal.rate))
        self.start = (len(signal.data) - count) // 2
        self.count = count
        part = self._part(signal.data)
        self.peak = float(mel_power(part, signal.rate, 96).max())
        self.head |= {
            "rate": signal.rate, "seconds": count / signal.rate, "start": self.start / signal.rate,
            "full": len(signal.data) / signal.rate, "channels": signal.data.shape[1],
        }  # fmt: skip

    def _part(self, samples: np.ndarray) -> np.ndarray:
        return samples[self.start : self.start + self.count]

    def _embed(self, samples: np.ndarray, budget: Budget) -> dict[str, Any] | None:
        import soundfile

        part = self._part(samples)
        buffer = io.BytesIO()
        soundfile.write(buffer, np.clip(part[:, :2], -1, 1), self.signal.rate, format="FLAC", subtype="PCM_16")
        text = budget.take(buffer.getvalue())
        if text is None:
            return None
        image = maps.spectrogram(part, self.signal.rate, self.peak)
        picture = io.BytesIO()
        Image.fromarray(image).save(picture, "PNG", optimize=True)
        shown = base64.b64encode(picture.getvalue()).decode()
        return {"uri": f"data:audio/flac;base64,{text}", "spectrum": f"data:image/png;base64,{shown}"}

    def add_original(self, budget: Budget) -> bool:
        found = self._embed(self.signal.data, budget)
        self.head["original"] = found
        return found is not None

    def add(self, row: Row, budget: Budget) -> None:
        data, decoded = self.result.decoded(row)
        if found := self._embed(decoded, budget):
            entry = {"codec": row["codec"], "setting": row["setting"], **found}
            if rates := maps.rate_over_time(self.result.coder(row["codec"]), data, self.signal):
                entry["kbps"], entry["step"] = [round(r, 2) for r in rates[0]], rates[1]
            self.decoded.append(entry)
