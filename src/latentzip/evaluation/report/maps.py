"""Where bits go and where errors are: grids over a picture, spectrograms and rate over time of a sound."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...codecs.contract import EXACT, LATENT
from ..coders import Coder, Ours, Setting
from ..metrics.sound import FLOOR_DB, mel_power
from ..signals import Signal

Grid = npt.NDArray[np.float64]

BLOCK = 8  # side of an error block in pixels
TILE = 64  # side of a rate tile in pixels, about
_MOST_TILES = 800


def error_blocks(a: np.ndarray, b: np.ndarray, block: int = BLOCK) -> Grid:
    """Root mean square error of blocks, in 8-bit steps: (ceil(H / block), ceil(W / block)) of two (H, W, 3) uint8."""
    square = np.square(a.astype(np.float64) - b.astype(np.float64)).mean(2)
    h, w = square.shape
    rows, columns = np.arange(0, h, block), np.arange(0, w, block)
    sums = np.add.reduceat(np.add.reduceat(square, rows, 0), columns, 1)
    counts = np.outer(np.diff(np.append(rows, h)), np.diff(np.append(columns, w)))
    return np.sqrt(sums / counts)


def rate_tiles(made: Coder, data: bytes, setting: Setting, signal: Signal) -> tuple[Grid, int] | None:
    """Bits per pixel of tiles, and a tile's side in pixels; None where a codec cannot say.

    A tile's latent is measured with the codec's own entropy model as if it were coded alone, and all tiles are scaled
    to what the file really has.
    """
    if not isinstance(made, Ours) or signal.modality != "image":
        return None
    if LATENT not in made.model.capabilities or EXACT in made.model.capabilities:
        return None
    from ...api import decode
    from ...entropy.coder import RateMeter

    model = made.model
    latent = np.asarray(decode(data, to="latent", codec=model), np.int32)
    unit = model.stride * model.latent_multiple
    side = -(-TILE // unit) * model.latent_multiple
    while -(-latent.shape[1] // side) * -(-latent.shape[2] // side) > _MOST_TILES:
        side *= 2
    quality = None
    if model.variable_rate:
        quality = model.default_quality if setting.value is None else int(setting.value)
    rows, columns = range(0, latent.shape[1], side), range(0, latent.shape[2], side)
    bits = np.zeros((len(rows), len(columns)))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            part = np.ascontiguousarray(latent[:, y : y + side, x : x + side])
            meter = RateMeter()
            model.program(meter, part, (part.shape[0], part.shape[1], part.shape[2]), quality)
            bits[i, j] = float(meter.bits)
    pixels = side * model.stride
    h, w = signal.data.shape[:2]
    heights = np.minimum(pixels, h - pixels * np.arange(len(rows)))
    widths = np.minimum(pixels, w - pixels * np.arange(len(columns)))
    return bits * (8 * len(data) / max(bits.sum(), 1e-9)) / np.outer(heights, widths), pixels


def spectrogram(
    samples: np.ndarray, rate: int, peak: float, width: int = 900, bands: int = 96
) -> npt.NDArray[np.uint8]:
    """(bands, columns) log-mel spectrogram of the mean over channels, high bands first: 0 is 80 dB below ``peak`` (a
    power of `mel_power`), 255 is ``peak``. At most ``width`` columns: neighbours are averaged."""
    power = mel_power(samples, rate, bands).mean(0)
    step = max(1, -(-len(power) // width))
    power = np.stack([part.mean(0) for part in np.split(power, range(step, len(power), step))])
    level = 10 * np.log10(np.maximum(power, 1e-20) / max(peak, 1e-20))
    scaled = np.clip(1 - level / FLOOR_DB, 0, 1)
    return np.round(255 * scaled).astype(np.uint8).T[::-1]


def rate_over_time(made: Coder, data: bytes, signal: Signal) -> tuple[list[float], float] | None:
    """kbit/s of the chunks of one of our streams, and the seconds that a chunk lasts (the last one may be shorter);
    None for other files."""
    step = made.frame_seconds(signal)
    if step is None:
        return None
    from ...codecs.audio_base import groups_of
    from ...entropy import container

    groups = len(groups_of(signal.data.shape[1]))
    sizes = np.array(container.read_header(data).chunk_sizes).reshape(-1, groups).sum(1)
    left = len(signal.data) / signal.rate - step * np.arange(len(sizes))
    lasting = np.clip(left, 1e-3, step)
    return list(8 * sizes / lasting / 1000), step
