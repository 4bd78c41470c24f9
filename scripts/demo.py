"""Encode and decode real photographs, print what happened, and write one HTML page to look at.

The photographs come with scikit-image and scikit-learn; `--images` takes others instead.
"""

from __future__ import annotations

import argparse
import base64
import io
import time
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import latentzip as lz
from latentzip.evaluation.metrics.pictures import ms_ssim, psnr

COLUMNS = ("photo", "size", "file", "bpp", "PSNR dB", "MS-SSIM", "encode s", "decode s")

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>latentzip demo</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
figure {{ margin: 2rem 0; }}
.pair {{ position: relative; max-width: 100%; width: fit-content; }}
.pair img {{ display: block; max-width: 100%; height: auto; }}
.pair img + img {{ position: absolute; inset: 0; clip-path: inset(0 0 0 var(--cut, 50%)); }}
.pair input {{ position: absolute; left: 0; bottom: .4rem; width: 100%; margin: 0; }}
</style>
<h1>latentzip: {codec}</h1>
<p>{count} photographs through real <code>.ltz</code> files. File sizes include everything needed to decode but the
weights, which are part of the package. Drag: original on the left, decoded on the right.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table>
{figures}
<script>
for (const slider of document.querySelectorAll(".pair input"))
  slider.addEventListener("input", () => slider.parentElement.style.setProperty("--cut", slider.value + "%"));
</script>
</html>
"""


def bundled() -> list[tuple[str, np.ndarray]]:
    """Photographs that scikit-image and scikit-learn bring: (name, (H, W, 3) uint8)."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    photos = [(n, getattr(data, n)()) for n in ("astronaut", "chelsea", "coffee")]
    samples = load_sample_images()
    return photos + [(Path(n).stem, i) for n, i in zip(samples.filenames, samples.images)]


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sheet(pairs: list[tuple[np.ndarray, np.ndarray]], side: int = 256) -> Image.Image:
    """Middles of the pictures at full resolution: originals above, decoded below."""
    result = Image.new("RGB", (len(pairs) * (side + 4) - 4, 2 * side + 4), "white")
    for i, pair in enumerate(pairs):
        for j, pixels in enumerate(pair):
            y, x = ((n - side) // 2 for n in pixels.shape[:2])
            result.paste(Image.fromarray(pixels[y : y + side, x : x + side]), (i * (side + 4), j * (side + 4)))
    return result


def run(name: str, pixels: np.ndarray, codec: str, out: Path) -> tuple[list[str], str, np.ndarray]:
    """One photograph: its row of the table, its figure and what was decoded."""
    source, target = out / f"{name}.ltz", out / f"{name}.png"
    picture = Image.fromarray(pixels)
    start = time.perf_counter()
    source.write_bytes(lz.encode(picture, codec=codec))
    middle = time.perf_counter()
    decoded = np.asarray(lz.decode(source))
    end = time.perf_counter()
    Image.fromarray(decoded).save(target)
    height, width = pixels.shape[:2]
    size = source.stat().st_size
    row = [
        name,
        f"{width} x {height}",
        f"{size / 1000:.1f} kB",
        f"{8 * size / (width * height):.3f}",
        f"{psnr(pixels, decoded):.2f}",
        f"{ms_ssim(pixels, decoded):.4f}",
        f"{middle - start:.2f}",
        f"{end - middle:.2f}",
    ]
    figure = (
        f'<figure><div class="pair"><img src="{png(pixels)}" alt="original" width="{width}" height="{height}">'
        f'<img src="{png(decoded)}" alt="decoded"><input type="range" value="50" aria-label="divider"></div>'
        f"<figcaption>{escape(name)}: {row[3]} bpp, {row[4]} dB</figcaption></figure>"
    )
    return row, figure, decoded


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--codec", default="walloc-rgb-16x")
    parser.add_argument("--images", type=Path, nargs="+", help="picture files to use instead of the bundled ones")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    photos = bundled()
    if args.images:
        photos = [(p.stem, np.asarray(Image.open(p).convert("RGB"))) for p in args.images]
    # loads weights and compiles kernels, so that the times below are those of the codec
    lz.decode(lz.encode(Image.new("RGB", (64, 64)), codec=args.codec))
    rows: list[list[str]] = []
    figures: list[str] = []
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    print(" ".join(f"{c:>12}" for c in COLUMNS))
    for name, pixels in photos:
        row, figure, decoded = run(name, pixels, args.codec, args.out)
        pairs.append((pixels, decoded))
        print(" ".join(f"{c:>12}" for c in row), flush=True)
        rows.append(row)
        figures.append(figure)
    cells: Any = ["<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows]
    page = args.out / "index.html"
    page.write_text(
        PAGE.format(
            codec=escape(args.codec),
            count=len(rows),
            head="".join(f"<th>{c}</th>" for c in COLUMNS),
            rows="\n".join(cells),
            figures="\n".join(figures),
        )
    )
    sheet(pairs).save(args.out / "sheet.png")
    print(f"\npictures side by side: {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
