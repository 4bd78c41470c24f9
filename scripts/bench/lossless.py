"""Pictures without loss beside PNG, WebP and, where a plug-in is installed, JPEG XL; sound beside FLAC."""

from __future__ import annotations

import argparse
import io
import time
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import latentzip as lz

from . import lossless_sound

EFFORTS = (1, 5, 8, 9)
MANY = 16  # pictures up to which each has a row of its own
SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm")


def _generated() -> list[tuple[str, Image.Image]]:
    y, x = np.mgrid[:256, :384] / 17
    noise = np.random.default_rng(0).normal(0, 2, (256, 384, 3))
    photo = np.stack([np.sin(x + y), np.cos(y), np.sin(x * 1.3)], -1) * 80 + 128 + noise
    pictures = [("noise on waves", Image.fromarray(photo.clip(0, 255).astype(np.uint8))), ("text", _text())]
    return pictures + _packaged() + _rendered()


def _text() -> Image.Image:
    text = Image.new("RGB", (640, 400), "white")
    draw = ImageDraw.Draw(text)
    for line in range(26):
        draw.text((8, 4 + 15 * line), f"{line:3d}  return the sum of {line * line} and {line}", fill=(20, 20, 90))
    return text


def _packaged() -> list[tuple[str, Image.Image]]:
    """Scans, drawings and masks that scikit-image brings."""
    if find_spec("skimage") is None:
        return []
    folder = Path(str(files("skimage.data")))
    names = ("page.png", "text.png", "logo.png", "horse.png", "phantom.png", "chessboard_RGB.png")
    paths = [folder / name for name in names if (folder / name).exists()]
    return [(f"{path.name} (skimage)", Image.open(path).convert("RGB")) for path in paths]


def _rendered() -> list[tuple[str, Image.Image]]:
    """A page of text and one of figures, as matplotlib draws them, edges smoothed."""
    if find_spec("matplotlib") is None:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page, plots = Figure((6, 8), dpi=100), Figure((8, 6), dpi=100)
    for line in range(40):
        words = " ".join(
            f"{(line * 37 + k * 11) % 89} lines of {['text', 'words', 'pages'][(line + k) % 3]}" for k in range(4)
        )
        page.text(0.08, 0.95 - line * 0.0225, words, size=9)
    x = np.linspace(0, 9, 300)
    for k, axes in enumerate(plots.subplots(2, 2).flat):
        axes.plot(x, np.sin(x * (k + 1)))
        axes.bar(range(9), np.cos(np.arange(9) + k), alpha=0.5)
        axes.set_title(f"figure {k}")
    made = []
    for name, figure in (("page (matplotlib)", page), ("figures (matplotlib)", plots)):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        made.append((name, Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")))
    return made


def _pictures(folder: Path | None, count: int | None) -> list[tuple[str, Image.Image]]:
    if folder is None:
        return _generated()[:count]
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    return [(p.name, _colour(Image.open(p))) for p in paths[:count]]


def _colour(image: Image.Image) -> Image.Image:
    """As RGB or RGBA, which all peers keep."""
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _peers() -> dict[str, tuple[str, dict[str, Any]]]:
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "PNG": ("PNG", {"optimize": True}),
        "WebP": ("WEBP", {"lossless": True, "exact": True}),
        "WebP, slowest": ("WEBP", {"lossless": True, "exact": True, "quality": 100, "method": 6}),
    }
    try:
        import pillow_jxl  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return found
    return found | {f"JPEG XL -e {e}": ("JXL", {"lossless": True, "effort": e}) for e in (7, 9)}


def _measure(image: Image.Image, encode: Any, decode: Any) -> dict[str, float]:
    start = time.process_time()
    data = encode(image)
    middle = time.process_time()
    same = decode(data)
    end = time.process_time()
    assert np.array_equal(np.asarray(same), np.asarray(image))
    size = np.asarray(image).nbytes / 1e6
    return {"num_bytes": len(data), "encode_mb_s": size / (middle - start), "decode_mb_s": size / (end - middle)}


def _saved(image: Image.Image, name: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def run(args: argparse.Namespace) -> dict[str, Any]:
    count = 2 if args.quick else args.limit
    has = [p.suffix.lower() for p in args.data.rglob("*")] if args.data else [*SUFFIXES, *lossless_sound.SUFFIXES]
    made: dict[str, Any] = {"rows": [], "summary": {}, "markdown": ""}
    if any(suffix in lossless_sound.SUFFIXES for suffix in has):
        heard = lossless_sound.run(args.data, count)
        made = {"rows": heard["rows"], "summary": {"sound": heard["summary"]}, "markdown": heard["markdown"]}
    if any(suffix in SUFFIXES for suffix in has):
        seen = _seen(args.data, count)
        made["rows"] = seen["rows"] + made["rows"]
        made["summary"] = seen["summary"] | made["summary"]
        made["markdown"] = "\n\n".join(part for part in (seen["markdown"], made["markdown"]) if part)
    return made


def _seen(folder: Path | None, count: int | None) -> dict[str, Any]:
    pictures = _pictures(folder, count)
    ways: dict[str, tuple[Any, Any]] = {
        name: (lambda im, n=kind, o=options: _saved(im, n, o), _opened) for name, (kind, options) in _peers().items()
    }
    for effort in EFFORTS:
        ways[f"lossless, effort {effort}"] = (
            lambda im, e=effort: lz.encode(im, codec="lossless", effort=e, metadata="none"), lz.decode,
        )  # fmt: skip
    warm = Image.fromarray(np.random.default_rng(1).integers(0, 256, (12, 12, 3), np.uint8))
    rows = []
    for way, (encode, decode) in ways.items():
        _measure(warm, encode, decode)
        rows += [{"codec": way, "image": name} | _measure(image, encode, decode) for name, image in pictures]
    summary: dict[str, Any] = {"bytes": {}, "encode_mb_s": {}, "decode_mb_s": {}}
    for way in ways:
        mine = [row for row in rows if row["codec"] == way]
        summary["bytes"][way] = sum(row["num_bytes"] for row in mine)
        for key in ("encode_mb_s", "decode_mb_s"):
            summary[key][way] = round(float(np.median([row[key] for row in mine])), 3)
    lines = ["| codec | bytes | encoded, MB/s | decoded, MB/s |", "|---|---|---|---|"]
    lines += [
        f"| {way} | {summary['bytes'][way]} | {summary['encode_mb_s'][way]} | {summary['decode_mb_s'][way]} |"
        for way in ways
    ]
    if len(pictures) <= MANY:
        lines += ["", f"| picture | {' | '.join(ways)} |", "|---|" + "---|" * len(ways)]
        for name, _ in pictures:
            found = {row["codec"]: row["num_bytes"] for row in rows if row["image"] == name}
            lines.append(f"| {name} | {' | '.join(str(found[way]) for way in ways)} |")
    if "JPEG XL -e 7" not in ways:
        lines += ["", "JPEG XL is left out: pip install pillow-jxl-plugin"]
    return {"rows": rows, "summary": summary, "markdown": "\n".join(lines)}
