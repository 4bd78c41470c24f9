"""Single instruments, computed: what codecs of sound are known to find hard, for runs without recordings.

Sharp onsets (castanets), pure inharmonic partials that ring on (glockenspiel), stiff strings (piano), plucked ones
(guitar), a gliding harmonic voice (soprano), a tone in breath noise (flute). None of it is a recording; each has the
trait that makes the recorded instrument difficult.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE = 44100

Floats = npt.NDArray[np.float32]


def instruments(seconds: float = 4.0) -> dict[str, Floats]:
    """Name -> (T, 2) float32 at 44.1 kHz, peaks at half of full scale."""
    rng = np.random.default_rng(0)
    makers = {
        "castanets": castanets,
        "glockenspiel": glockenspiel,
        "piano": piano,
        "guitar": guitar,
        "soprano": soprano,
        "flute": flute,
    }
    out = {}
    for number, (name, make) in enumerate(makers.items()):
        x = make(int(seconds * RATE), rng)
        side = 0.3 + 0.08 * number
        pair = np.stack([x * (1 - side), np.roll(x, 11) * side], 1)
        out[name] = (pair / (2 * np.abs(pair).max())).astype(np.float32)
    return out


def castanets(n: int, rng: np.random.Generator) -> np.ndarray:
    """Clicks of 15 ms, in rolls."""
    x, at = np.zeros(n), 0.05
    while at < n / RATE - 0.1:
        t = np.arange(int(0.06 * RATE)) / RATE
        tone = np.sin(2 * np.pi * rng.uniform(1800, 2600) * t) + 0.6 * rng.normal(size=t.size)
        x[int(at * RATE) :][: t.size] += rng.uniform(0.4, 1) * tone * np.exp(-t / 0.004)
        at += rng.choice([0.055, 0.11, 0.33])
    return x


def glockenspiel(n: int, rng: np.random.Generator) -> np.ndarray:
    """Free bars: partials at 1, 2.756, 5.404 of the lowest one (Fletcher and Rossing 1998), ringing for a second."""
    return _notes(n, rng, 0.35, (79, 98), lambda f, t: _partials(f * np.array([1, 2.756, 5.404]), t, 0.6, 1.0))


def piano(n: int, rng: np.random.Generator) -> np.ndarray:
    """Stiff strings, k f sqrt(1 + B k^2), two a note and a little out of tune."""
    k = np.arange(1, 16)

    def note(f: float, t: np.ndarray) -> np.ndarray:
        stretched = k * f * np.sqrt(1 + 4e-4 * k * k)
        return _partials(stretched, t, 0.8, 1.3) + _partials(stretched * 1.0007, t, 0.8, 1.3)

    return _notes(n, rng, 0.3, (45, 76), note)


def guitar(n: int, rng: np.random.Generator) -> np.ndarray:
    """Plucked strings (Karplus and Strong 1983)."""

    def note(f: float, t: np.ndarray) -> np.ndarray:
        wave, out = rng.uniform(-1, 1, int(RATE / f)), np.empty(t.size)
        for i in range(0, t.size, wave.size):
            out[i : i + wave.size] = wave[: out[i : i + wave.size].size]
            wave = 0.498 * (wave + np.roll(wave, 1))
        return out

    return _notes(n, rng, 0.25, (40, 67), note)


def soprano(n: int, rng: np.random.Generator) -> np.ndarray:
    """Harmonics under three formants, vibrato of 6 Hz, gliding from tone to tone."""
    t = np.arange(n) / RATE
    targets = rng.integers(69, 84, n * 2 // RATE + 2)
    tone = np.interp(t * 2, np.arange(targets.size), targets) + 0.4 * np.sin(2 * np.pi * 6 * t)
    f = 440 * 2 ** ((tone - 69) / 12)
    phase, x = 2 * np.pi * np.cumsum(f) / RATE, np.zeros(n)
    for k in range(1, 16):
        weight = sum(np.exp(-(((k * f - c) / w) ** 2)) for c, w in ((800, 250), (1200, 300), (3000, 500)))
        x += (weight + 0.02) * np.sin(k * phase)
    return x


def flute(n: int, rng: np.random.Generator) -> np.ndarray:
    """A few harmonics, tremolo, and breath through the same resonance."""

    def note(f: float, t: np.ndarray) -> np.ndarray:
        breath = np.convolve(rng.normal(size=t.size), np.exp(-np.arange(200) / 40) * np.cos(
            2 * np.pi * f * np.arange(200) / RATE), "same")  # fmt: skip
        tone = sum(a * np.sin(2 * np.pi * k * f * t) for k, a in ((1, 1.0), (2, 0.3), (3, 0.12), (4, 0.03)))
        rise = np.minimum(t / 0.05, 1) * np.exp(-t / 1.5)
        return rise * (tone * (1 + 0.1 * np.sin(2 * np.pi * 5 * t)) + 0.015 * breath)

    return _notes(n, rng, 0.5, (60, 86), note)


def _notes(n: int, rng: np.random.Generator, every: float, keys: tuple[int, int], note) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Notes of MIDI keys, one every so many seconds, each ringing on: note(Hz, seconds (T,)) -> (T,)."""
    x = np.zeros(n)
    for start in range(0, n, int(every * RATE)):
        t = np.arange(n - start) / RATE
        x[start:] += rng.uniform(0.5, 1) * note(440 * 2 ** ((rng.integers(*keys) - 69) / 12), t)
    return x


def _partials(hertz: np.ndarray, t: np.ndarray, seconds: float, fall: float) -> np.ndarray:
    """Partials that start together; the higher, the fainter and the shorter."""
    x = np.zeros(t.size)
    for k, f in enumerate(hertz[hertz < 0.45 * RATE], 1):
        x += k**-fall * np.sin(2 * np.pi * f * t) * np.exp(-t * k**0.5 / seconds)
    return x
