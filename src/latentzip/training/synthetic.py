"""Pictures that photographs do not teach: text, flat graphics, screens, noise and gradients, drawn at random."""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
_LETTERS = string.ascii_letters + string.digits + ".,;:-()"


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _colour(rng: np.random.Generator) -> Colour:
    """Any colour; greys, black and white as often as all others."""
    if rng.random() < 0.5:
        level = int(rng.choice([0, 20, 128, 235, 255, int(rng.integers(256))]))
        return (level, level, level)
    r, g, b = (int(v) for v in rng.integers(0, 256, 3))
    return (r, g, b)


def _words(rng: np.random.Generator, count: int) -> str:
    letters = rng.integers(len(_LETTERS), size=(count, 12))
    return " ".join("".join(_LETTERS[i] for i in row[: rng.integers(1, 11)]) for row in letters)


def _lines(draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[int, int, int, int], ink: Colour) -> None:
    """Lines of words in a box, cut at its right edge by the picture's."""
    x0, y0, x1, y1 = box
    size = int(rng.integers(8, 28))
    y, step = y0 + 2, int(size * rng.uniform(1.1, 1.7))
    while y + size < y1:
        count = max(1, int((x1 - x0) / (size * 3)))
        draw.text((x0 + 3, y), _words(rng, count), fill=ink, font=_font(size))
        y += step


def text(rng: np.random.Generator, size: int) -> np.ndarray:
    """A page, or a part of it, dark on light or light on dark."""
    paper, ink = (_colour(rng) for _ in range(2))
    if abs(sum(paper) - sum(ink)) < 200:
        paper, ink = (255, 255, 255), (0, 0, 0)
    image = Image.new("RGB", (size, size), paper)
    _lines(ImageDraw.Draw(image), rng, (int(rng.integers(-20, 20)), 0, size, size), ink)
    return np.asarray(image)


def flat(rng: np.random.Generator, size: int) -> np.ndarray:
    """Shapes of one colour each over another, with sharp edges."""
    image = Image.new("RGB", (size, size), _colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 14))):
        (x0, y0), (w, h) = rng.integers(-size // 4, size, 2), rng.integers(2, size, 2)
        box = (int(x0), int(y0), int(x0 + w), int(y0 + h))
        kind = rng.integers(4)
        if kind == 0:
            draw.rectangle(box, fill=_colour(rng))
        elif kind == 1:
            draw.ellipse(box, fill=_colour(rng))
        elif kind == 2:
            points = [(int(x), int(y)) for x, y in rng.integers(0, size, (int(rng.integers(3, 7)), 2))]
            draw.polygon(points, fill=_colour(rng))
        else:
            draw.line(box, fill=_colour(rng), width=int(rng.integers(1, 6)))
    return np.asarray(image)


def screen(rng: np.random.Generator, size: int) -> np.ndarray:
    """Windows with a title, frames, buttons and lines of text."""
    image = Image.new("RGB", (size, size), _colour(rng))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        (x0, y0), (w, h) = rng.integers(-size // 6, size * 2 // 3, 2), rng.integers(size // 3, size, 2)
        x0, y0, x1, y1 = int(x0), int(y0), int(x0 + w), int(y0 + h)
        light = rng.random() < 0.6
        body, ink = ((250, 250, 250), (30, 30, 30)) if light else ((38, 38, 42), (220, 220, 220))
        draw.rectangle((x0, y0, x1, y1), fill=body, outline=_colour(rng))
        draw.rectangle((x0, y0, x1, y0 + 18), fill=_colour(rng))
        _lines(draw, rng, (x0 + 4, y0 + 20, x1, y1 - 24), ink)
        for k in range(int(rng.integers(0, 4))):
            at = x0 + 6 + 52 * k
            draw.rounded_rectangle((at, y1 - 22, at + 46, y1 - 4), radius=4, fill=_colour(rng), outline=ink)
    return np.asarray(image)


def noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Grain of any strength and coarseness over a level, in grey or in colour."""
    scale = int(rng.choice([1, 1, 2, 4]))
    channels = int(rng.choice([1, 3]))
    small = rng.normal(0, np.exp(rng.uniform(0, 4)), (-(-size // scale), -(-size // scale), channels))
    field = np.repeat(np.repeat(small, scale, 0), scale, 1)[:size, :size]
    return np.clip(np.broadcast_to(field, (size, size, 3)) + rng.uniform(20, 235), 0, 255).astype(np.uint8)


def gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    """A ramp or a glow between two colours: what shows bands."""
    y, x = np.mgrid[:size, :size] / size
    angle = rng.uniform(0, 2 * np.pi)
    t = x * np.cos(angle) + y * np.sin(angle)
    if rng.random() < 0.4:
        t = np.hypot(x - rng.random(), y - rng.random())
    t = ((t - t.min()) / max(np.ptp(t), 1e-9)) ** np.exp(rng.uniform(-1, 1))
    a, b = np.array(_colour(rng)), np.array(_colour(rng))
    return np.round(a + (b - a) * t[..., None]).astype(np.uint8)


KINDS: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (text, flat, screen, noise, gradient)


def picture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A picture (size, size, 3) uint8 of one of the kinds."""
    return KINDS[int(rng.integers(len(KINDS)))](rng, size)
